package projections

import (
	"fmt"
	"math"

	"github.com/plugcast/plugcast/domain"
)

// pos is a position as its two columns. Postgres' integers are signed: a position beyond them
// becomes the greatest pair, which is after every other position.
type pos struct{ ms, n int64 }

func posOf(p domain.Position) pos {
	if p.Ms > math.MaxInt64 {
		return pos{math.MaxInt64, math.MaxInt64}
	}
	return pos{int64(p.Ms), int64(min(p.N, math.MaxInt64))}
}

func (p pos) position() domain.Position { return domain.Position{Ms: uint64(p.ms), N: uint64(p.n)} }

// fits reports whether history can hold an event at the position.
func fits(p domain.Position) bool { return p.Ms <= math.MaxInt64 && p.N <= math.MaxInt64 }

// overflowError means that the log has an entry at a position that history cannot hold. Redis
// never assigns such a position: someone added the entry with an explicit id. It cannot be
// moved into quarantine, because Redis gives every later entry a greater id, and two entries
// cannot share the greatest position in history.
type overflowError struct{ at domain.Position }

func (e *overflowError) Error() string {
	return fmt.Sprintf("the entry at %s has an id from 2^63, which was written by hand: nothing after it is projected until the "+
		"stream is repaired as SECURITY.md describes", e.at)
}
