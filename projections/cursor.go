package projections

import (
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
