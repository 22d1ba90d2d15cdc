package shelly

import (
	"math"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// energy is a channel's lifetime energy, which never falls, kept from a counter
// of the device's that does: at ResetCounters and factory resets, and on the first
// generation at each power cut (measured). Some devices also show 0 for a while and
// then the old total again, so each fall is remembered until it is known what it
// was. All that it remembers is in the log, for the next holder.
type energy struct {
	total   domain.Optional[float64] // Wh, without corrections
	offset  domain.Optional[float64] // what operators' corrections add
	counter domain.Optional[float64] // Wh, as last heard, without falls of less than rounding
	falls   []domain.CounterFall     // that may not have been resets; the latest is the last
	base    float64                  // total without counter

	heard time.Time // when the counter was heard last
	rose  time.Time // when it rose last
	power float64   // W, as heard with it

	since  domain.Optional[time.Time] // the last rise is of what was used since then
	logged bool                       // since has been told
}

const (
	// rounding is a fall that is none, in Wh: a restart cuts the fraction (measured).
	rounding = 1
	// doubtFor is how long a fall is taken to have been no reset when the counter
	// comes back to where it was, however it does.
	doubtFor = 10 * time.Minute
	// rememberFor is how long one is remembered: later the counter has been reset.
	rememberFor = 24 * time.Hour
	// maxFalls bounds what is remembered. One fall inside another's doubt is rare.
	maxFalls = 4
	// maxFlow is more than flows through any one device, in W.
	maxFlow = 25_000
	// gap is how long the counter has to be silent, or to stand still, for what
	// comes at once then to be marked. Devices with a meter tell it each minute.
	gap = 10 * time.Minute
)

// energyOf goes on from what the log has. A total without a counter, as others
// publish it, is a base to which the next counter is the reference.
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

// before is the total without the counter, as it was before the fall.
func before(f *domain.CounterFall) float64 { return f.EnergyWh - f.CounterWh }

// isBack reports whether the counter is where it was before the fall.
func isBack(f *domain.CounterFall, counter float64) bool { return counter >= f.CounterWh-rounding }

// count takes a reading of the counter, in Wh, and of the power beside it. One that
// is negative or not finite counts for nothing.
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
		e.falls = e.falls[:n-1] // what was counted while it was down has been used by now
	}
	e.mark(next-total, power, now)
}

// fall remembers a fall and goes on as if it were what it looks like.
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
	if counter < last/2 { // a reset: all that it shows is new
		e.base = total
	} else { // rolled back: a device that saves its counter now and then lost a little
		e.base = total - counter
	}
}

// rise settles the falls from which the counter has come back, and returns the
// counter that counts from here on.
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
			e.falls = e.falls[:i+1] // until the total has been caught up with
		} else {
			e.falls = e.falls[:i]
		}
		return counter
	}
	return counter
}

// wasReset reports whether the counter, which is back where it was, has counted
// all the way: slowly, in steps that can have been used.
func (e *energy) wasReset(f *domain.CounterFall, last, counter float64, now time.Time) bool {
	step := counter - last
	return now.Sub(f.At) > doubtFor && step < f.CounterWh/2 && step <= rounding+flow(maxFlow, now.Sub(e.heard))
}

// flow is what a power uses in a time, in Wh.
func flow(watts float64, d time.Duration) float64 { return watts * max(d, 0).Hours() }

// mark notes when what the total rose by was used, if that was not just now.
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

// says puts what is known of the energy into an update.
func (e *energy) says(u *domain.DeviceUpdate) {
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

// shifted is an energy with some Wh more.
func shifted(wh domain.Optional[float64], by float64) domain.Optional[float64] {
	if v, known := wh.Get(); known && by != 0 {
		return domain.Some(domain.RoundEnergy(v + by))
	}
	return wh
}
