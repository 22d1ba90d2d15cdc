package ws

import (
	"strings"
	"testing"
)

// The error about a malformed frame tells its sender how to correct it.
func TestBadFramesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	for frame, says := range map[string]string{
		"\xef\xbb\xbf{}": "byte order mark", "\xff\xfe{\x00": "byte order mark", "": "is empty", "{\"event\":\"\xff\"}": "is not UTF-8",
		"[]": "a frame is a JSON object",
	} {
		if _, err := parseRequest([]byte(frame)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", frame, err)
		}
	}
}
