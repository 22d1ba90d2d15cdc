package domain

import (
	"math"
	"testing"
	"time"
)

// A position that no time can express still has a time that RFC 3339 can express.
func TestPositionTime(t *testing.T) {
	t.Parallel()
	for ms, want := range map[uint64]string{
		0: "1970-01-01T00:00:00Z", 1795461046705: "2026-11-23T19:10:46.705Z",
		1 << 63: "9999-12-31T23:59:59.999Z", math.MaxUint64: "9999-12-31T23:59:59.999Z",
	} {
		if got := (Position{Ms: ms}).Time().Format(time.RFC3339Nano); got != want {
			t.Errorf("%d: %s, not %s", ms, got, want)
		}
	}
}
