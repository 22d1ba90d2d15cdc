package projections

import (
	"fmt"
	"math"

	"github.com/plugcast/plugcast/domain"
)

// place is a position as its two columns. Postgres' numbers are signed: what
// lies beyond them is beyond all there is, and stays so.
type place struct{ ms, n int64 }

func placeOf(p domain.Position) place {
	if p.Ms > math.MaxInt64 {
		return place{math.MaxInt64, math.MaxInt64}
	}
	return place{int64(p.Ms), int64(min(p.N, math.MaxInt64))}
}

func (p place) position() domain.Position { return domain.Position{Ms: uint64(p.ms), N: uint64(p.n)} }

// hasPlace reports whether history can hold an event at the position.
func hasPlace(p domain.Position) bool { return p.Ms <= math.MaxInt64 && p.N <= math.MaxInt64 }

// beyondError says that the log has an entry at a position that history cannot hold.
// Redis gives no such position by itself: somebody wrote the entry with an id of their
// own. It cannot be moved into quarantine, since Redis gives every later entry a greater
// id, and two entries cannot share the greatest place that there is.
type beyondError struct{ at domain.Position }

func (e *beyondError) Error() string {
	return fmt.Sprintf("the entry at %s has an id from 2^63, which was written by hand: nothing after it is projected until the "+
		"stream is repaired as SECURITY.md describes", e.at)
}
