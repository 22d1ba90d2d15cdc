package shelly

import (
	"math"

	"github.com/plugcast/plugcast/domain"
)

// energy is a channel's lifetime energy, which never falls, kept from a counter
// of the device's that does: at ResetCounters and factory resets, and on the first
// generation at each power cut (measured).
type energy struct {
	total   domain.Optional[float64] // Wh
	counter domain.Optional[float64] // Wh, as last heard
	offset  float64                  // total without counter, so that adding does not add rounding
}

// energyOf goes on from what the log has. A total without a counter, as others
// publish it, is a base to which the next counter is the reference.
func energyOf(total, counter domain.Optional[float64]) energy {
	e := energy{total: total, counter: counter}
	t, _ := total.Get()
	c, _ := counter.Get()
	e.offset = t - c
	return e
}

// count takes a reading of the counter, in Wh. One that is negative or not finite
// counts for nothing.
func (e *energy) count(counter float64) {
	if !(counter >= 0 && counter <= math.MaxFloat64) {
		return
	}
	total, known := e.total.Get()
	last, referred := e.counter.Get()
	switch {
	case !known:
		e.offset = 0
	case !referred:
		e.offset = total - counter
	case counter >= last:
	case counter < last/2: // a reset: all that it shows is new
		e.offset = total
	default: // rolled back: a device that saves its counter now and then lost a little
		e.offset = total - counter
	}
	e.counter = domain.Some(counter)
	e.total = domain.Some(max(total, e.offset+counter))
}
