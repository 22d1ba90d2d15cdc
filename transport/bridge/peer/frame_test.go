package peer

import "testing"

// The names of a frame's members must match exactly, and a malformed event is still
// recognized as an event: it must not stop the link.
func TestReadFrame(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{ // EVENT POSITION
		`{"event":"heartbeat","data":{}}`:                                "heartbeat -",
		`{"event":"device-update","position":"7-0","data":{}}`:           "device-update 7-0",
		`{"Event":"heartbeat","event":"device-update","Position":"9-0"}`: "device-update -",
		`{"position":"7-0","position":"9-0","data":1,"data":2}`:          " 7-0",
		"{\"position\":\"7-0\",\"actor\":\"\xff\"}":                      " 7-0",
		`{"event":1}`:                    "error",
		`{"position":"x"}`:               "error",
		`[]`:                             "error",
		`{"event":"x"} {}`:               "error",
		``:                               "error",
		`{"event":null,"position":null}`: " -",
	} {
		f, err := readFrame([]byte(raw))
		got := f.Event + " -"
		if f.Position != nil {
			got = f.Event + " " + f.Position.String()
		}
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, %v; want %s", raw, got, err, want)
		}
	}
}
