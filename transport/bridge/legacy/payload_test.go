package legacy

import (
	"encoding/json"
	"strings"
	"testing"
)

// All JSON that the decoder accepts can be encoded again, so that mustJSON does not panic.
func TestDecodedJSONCanBeEncoded(t *testing.T) {
	t.Parallel()
	const deep = 9_990 // about the decoder's limit
	for _, text := range []string{
		`{"a":"\u0000\ud800"}`, "{\"a\":\"\xff\"}", `{"a":1e999}`, `{"a":-0}`, `{"":{"":null}}`, `{"a":"\u2028<>&"}`,
		`{"a":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`,
	} {
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &members); err != nil {
			t.Fatalf("%.40s: %v", text, err)
		}
		if raw := mustJSON(map[string]any{"in": members, "text": "\xff\x00"}); !json.Valid(raw) {
			t.Errorf("%.40s became %.40s", text, raw)
		}
	}
}
