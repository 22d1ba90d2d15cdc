package shelly

import (
	"math"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// energy counts a channel's lifetime energy, which never falls, from the device's
// counter, which does: at ResetCounters, at factory resets, and on the first generation
// at each power cut (measured). Some devices also show 0 for a while and then the old
// total again, so each fall is remembered until its cause is known. The log has all of
// this state, for the next holder.
type energy struct {
	total   domain.Optional[float64] // Wh, without corrections
	offset  domain.Optional[float64] // Wh, the sum of operators' corrections
	counter domain.Optional[float64] // Wh, the last reading, without falls of less than rounding
	falls   []domain.CounterFall     // that may not have been resets, in order
	base    float64                  // Wh, total without counter

	heard time.Time // when the counter was last read
	rose  time.Time // when the counter last rose
	power float64   // W, read with the counter

	since  domain.Optional[time.Time] // when the use began that the last rise shows
	logged bool                       // since has been appended
}

const (
	// rounding is the largest fall to ignore, in Wh: a restart cuts the fraction (measured).
	rounding = 1
	// doubtFor is how long after a fall the counter's return to its old value means that
	// there was no reset.
	doubtFor = 10 * time.Minute
	// rememberFor is how long a fall is remembered. After that it counts as a reset.
	rememberFor = 24 * time.Hour
	// maxFalls is how many falls are remembered. One fall within another's doubtFor is
	// rare.
	maxFalls = 4
	// maxFlow is more than flows through any one device, in W.
	maxFlow = 25_000
	// gap is how long the counter must be silent, or unchanged, for a rise after that to
	// be marked with its beginning. Devices with a meter report it each minute.
	gap = 10 * time.Minute
)

// energyOf continues from the log's state. A total without a counter, as others publish
// it, becomes the base, and the next counter is the reference.
func energyOf(log *domain.DeviceUpdate, heard time.Time) energy {
	e := energy{offset: log.EnergyOffsetWh, counter: log.CounterWh, since: log.EnergySince, logged: true, heard: heard, rose: heard}
	e.total = shifted(log.EnergyWh, -valueOf(e.offset))
	falls, _ := log.CounterFalls.Get()
	e.falls = slices.Clone(falls)
	e.power, _ = log.PowerW.Get()
	total, _ := e.total.Get()
	counter, _ := e.counter.Get()
	e.base = total - counter
	if n := len(e.falls); n > 0 && isBack(&e.falls[n-1], counter) {
		e.base = before(&e.falls[n-1])
	}
	return e
}

// before returns the total without the counter, as it was before the fall.
func before(f *domain.CounterFall) float64 { return f.EnergyWh - f.CounterWh }

// isBack reports whether the counter is where it was before the fall.
func isBack(f *domain.CounterFall, counter float64) bool { return counter >= f.CounterWh-rounding }

// count applies a reading of the counter, in Wh, and of the power beside it. It ignores a
// counter that is negative or not finite.
func (e *energy) count(counter float64, power domain.Optional[float64], now time.Time) {
	if !(counter >= 0 && counter <= math.MaxFloat64) {
		return
	}
	counter = domain.RoundEnergy(counter)
	total, known := e.total.Get()
	last, referred := e.counter.Get()
	switch {
	case !known:
		e.base, last, total = 0, counter, counter
	case !referred:
		e.base, last = total-counter, counter
	case counter >= last:
		counter = e.rise(last, counter, now)
	case counter >= last-rounding:
		counter = last
	default:
		e.fall(last, counter, total, now)
	}
	e.counter = domain.Some(counter)
	next := max(total, domain.RoundEnergy(e.base+counter))
	e.total = domain.Some(next)
	if n := len(e.falls); n > 0 && isBack(&e.falls[n-1], counter) && e.base+counter >= next-0.0005 {
		e.falls = e.falls[:n-1] // the counter has caught up with the total
	}
	e.mark(next-total, power, now)
}

// fall remembers a fall, and treats it as the reset or roll-back that it looks like.
func (e *energy) fall(last, counter, total float64, now time.Time) {
	if len(e.falls) == maxFalls {
		least := 0
		for i := range e.falls {
			if e.falls[i].CounterWh < e.falls[least].CounterWh {
				least = i
			}
		}
		e.falls = slices.Delete(e.falls, least, least+1)
	}
	e.falls = append(slices.Clip(e.falls), domain.CounterFall{At: now.UTC().Truncate(time.Microsecond), CounterWh: last, EnergyWh: total})
	if counter < last/2 { // a reset: the whole counter is new use
		e.base = total
	} else { // rolled back: the device saves its counter now and then and lost a little
		e.base = total - counter
	}
}

// rise settles the falls from which the counter has returned, and returns the counter to
// continue with.
func (e *energy) rise(last, counter float64, now time.Time) float64 {
	e.falls = slices.DeleteFunc(slices.Clone(e.falls), func(f domain.CounterFall) bool {
		return !isBack(&f, last) && now.Sub(f.At) > rememberFor
	})
	for i := range e.falls {
		f := &e.falls[i]
		if isBack(f, last) || !isBack(f, counter) {
			continue
		}
		if !e.wasReset(f, last, counter, now) {
			e.base, counter = before(f), max(counter, f.CounterWh)
			e.falls = e.falls[:i+1] // until the counter has caught up with the total
		} else {
			e.falls = e.falls[:i]
		}
		return counter
	}
	return counter
}

// wasReset reports whether the counter, which has its old value again, has counted all
// the way up: slowly, and in steps of possible use.
func (e *energy) wasReset(f *domain.CounterFall, last, counter float64, now time.Time) bool {
	step := counter - last
	return now.Sub(f.At) > doubtFor && step < f.CounterWh/2 && step <= rounding+flow(maxFlow, now.Sub(e.heard))
}

// flow returns the energy of a power over a time, in Wh.
func flow(watts float64, d time.Duration) float64 { return watts * max(d, 0).Hours() }

// mark notes when the use began that a rise of the total shows, if that was not just now.
func (e *energy) mark(rise float64, power domain.Optional[float64], now time.Time) {
	watts, known := power.Get()
	most := 2 * max(math.Abs(watts), math.Abs(e.power))
	if !known {
		most = maxFlow
	}
	silent, still := now.Sub(e.heard) >= gap, now.Sub(e.rose) >= gap
	begin := e.heard
	if !silent {
		begin = e.rose
	}
	switch {
	case rise <= 0:
	case !begin.IsZero() && rise >= rounding && (silent || still && rise > rounding+flow(most, now.Sub(e.heard))):
		if e.logged || e.since.IsZero() {
			e.since, e.logged = domain.Some(begin.UTC().Truncate(time.Microsecond)), false
		}
	case e.logged:
		e.since = domain.Optional[time.Time]{}
	}
	if rise > 0 || e.rose.IsZero() {
		e.rose = now
	}
	e.heard, e.power = now, watts
}

// fill sets the energy fields of an update.
func (e *energy) fill(u *domain.DeviceUpdate) {
	u.EnergyWh, u.EnergyOffsetWh = shifted(e.total, valueOf(e.offset)), e.offset
	u.CounterWh, u.EnergySince = e.counter, e.since
	if len(e.falls) > 0 {
		u.CounterFalls = domain.Some(e.falls)
	}
}

func valueOf(o domain.Optional[float64]) float64 {
	v, _ := o.Get()
	return v
}

// shifted returns an energy plus some Wh.
func shifted(wh domain.Optional[float64], by float64) domain.Optional[float64] {
	if v, known := wh.Get(); known && by != 0 {
		return domain.Some(domain.RoundEnergy(v + by))
	}
	return wh
}
