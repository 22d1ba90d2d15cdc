package ws

import (
	"encoding/json"
	"testing"
	"time"
)

// A frame that cannot be encoded becomes an error frame and not a panic.
func TestFrameThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	frame := encodeFrame(eventAuthenticated, json.RawMessage("1"), map[string]any{"at": time.Date(58_000, 1, 1, 0, 0, 0, 0, time.UTC)})
	var got struct {
		Event string
		Data  struct{ Code string }
	}
	if err := json.Unmarshal(frame, &got); err != nil || got.Event != eventError || got.Data.Code != "internal" {
		t.Errorf("%v in %s", err, frame)
	}
}
