package rpc

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Every request and answer can be encoded, with all values.
func TestRequestsCanBeWritten(t *testing.T) {
	t.Parallel()
	const odd = domain.DeviceID("\xff\x00<\u2028")
	for _, raw := range [][]byte{
		GetStatus(math.MaxUint64, odd),
		SwitchSet(1, odd, math.MinInt, true, math.MaxInt64),
		SwitchSet(1, odd, math.MaxInt, true, time.Duration(math.MinInt64)),
		SwitchGetStatus(0, odd, -1),
		NoHandler(&Frame{Method: "\xff\x00", Source: odd}),
		NoHandler(&Frame{ID: json.RawMessage{}}),
		NoHandler(&Frame{ID: json.RawMessage("{")}),
	} {
		if !json.Valid(raw) {
			t.Errorf("not JSON: %s", raw)
		}
	}
}
