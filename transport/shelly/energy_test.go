package shelly

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

// reading is the value of a counter after some time.
type reading struct {
	after   time.Duration
	counter float64
}

// every returns readings at equal intervals.
func every(d time.Duration, counters ...float64) (readings []reading) {
	for _, c := range counters {
		readings = append(readings, reading{d, c})
	}
	return readings
}

// The lifetime total after each reading is the same for one holder, and for one that ends
// after each reading.
func TestEnergyOfCounters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		readings []reading
		totals   []float64
	}{
		"counts": {every(time.Minute, 10, 10.5, 12), []float64{10, 10.5, 12}},
		"shows 0 once": {
			every(time.Second, 100954.03, 0, 100954.03, 100990.70),
			[]float64{100954.03, 100954.03, 100954.03, 100990.70},
		},
		"shows 0 for a while": {every(time.Minute, 500, 0, 0, 0.5, 500.2, 501), []float64{500, 500, 500, 500.5, 500.5, 501}},
		"shows 0 for hours": {
			every(time.Hour, 100954.03, 0, 0, 100954.03, 100990.70),
			[]float64{100954.03, 100954.03, 100954.03, 100954.03, 100990.70},
		},
		"shows 0 twice":                  {every(time.Second, 500, 0, 500, 0, 500, 500.1), []float64{500, 500, 500, 500, 500, 500.1}},
		"shows less":                     {every(time.Second, 500, 300, 500, 501), []float64{500, 500, 500, 501}},
		"was reset":                      {every(time.Minute, 500, 0, 2, 5), []float64{500, 500, 502, 505}},
		"was reset, and has used some":   {every(time.Minute, 500, 7, 8), []float64{500, 507, 508}},
		"was reset and shows 0":          {every(time.Minute, 500, 0, 20, 0, 20, 21), []float64{500, 500, 520, 520, 520, 521}},
		"was reset and counts beyond":    {every(20*time.Minute, 500, 0, 200, 400, 600, 601), []float64{500, 500, 700, 900, 1100, 1101}},
		"lost a little":                  {every(20*time.Minute, 500, 480, 490, 500, 510), []float64{500, 500, 510, 520, 530}},
		"is rounded at a restart":        {every(time.Minute, 544.587493, 544.587, 544.6), []float64{544.587, 544.587, 544.6}},
		"is rounded down and down":       {every(time.Minute, 10, 9.5, 9.1, 10, 10.2), []float64{10, 10, 10, 10, 10.2}},
		"comes back rounded":             {every(time.Second, 500.9, 0, 500, 501), []float64{500.9, 500.9, 500.9, 501}},
		"has noise":                      {every(time.Minute, 0.1+0.2, 0.7), []float64{0.3, 0.7}},
		"of the first generation":        {every(time.Minute, 100847.0/60, 100848.0/60), []float64{1680.783, 1680.8}},
		"is no number now and then":      {every(time.Minute, 5, math.NaN(), -1, math.Inf(1), 6), []float64{5, 5, 5, 5, 6}},
		"shows less while it shows less": {every(time.Second, 500, 100, 40, 500, 501), []float64{500, 600, 640, 640, 640}},
	} {
		for _, restarts := range []bool{false, true} {
			h := newHolder()
			for i, r := range c.readings {
				h.read(r)
				if total, _ := h.total.Get(); total != c.totals[i] {
					t.Errorf("%s (restarts: %v): %v after reading %d, want %v", name, restarts, total, i, c.totals[i])
				}
				if restarts {
					h.restart(t)
				}
			}
		}
	}
}

// holder counts energy, and can give it to another holder through the log.
type holder struct {
	energy
	now time.Time
}

func newHolder() *holder { return &holder{now: epoch} }

func (h *holder) read(r reading) {
	h.now = h.now.Add(r.after)
	h.count(r.counter, domain.Optional[float64]{}, h.now)
}

// restart continues as a new holder that has only the state in the event.
func (h *holder) restart(t fataler) {
	t.Helper()
	var u, read domain.DeviceUpdate
	h.fill(&u)
	raw, err := json.Marshal(u)
	if err == nil {
		err = json.Unmarshal(raw, &read)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.energy = energyOf(&read, h.now)
}

// A rise after a silence is marked, until the next rise was appended.
func TestEnergyAfterASilence(t *testing.T) {
	t.Parallel()
	b := setup(t)
	status := func(power, total float64) {
		b.full(fmt.Sprintf(`{"switch:0":{"output":true,"apower":%v,"aenergy":{"total":%v}}}`, power, total))
	}
	since := func(want string) {
		t.Helper()
		b.take(time.Minute)
		b.want(plug, map[string]string{"energySince": want})
	}
	status(100, 1000)
	since("")
	status(100, 1001.7)
	since("")
	silent := b.now.Add(-time.Minute)
	b.now = b.now.Add(3 * time.Hour)
	status(100, 1310)
	status(100, 1310.2) // before the first was appended
	since(fmt.Sprintf("%q", silent.Format(time.RFC3339)))
	status(100, 1311.7)
	since("")

	// The counter stands still for an hour, although readings come, and then rises at once.
	still := b.now.Add(-time.Minute)
	for range 60 {
		status(300, 1311.7)
		since("")
	}
	b.restart()
	status(300, 1611.7)
	if u := b.take(time.Minute); len(u) != 1 || u[0].EnergySince.IsZero() {
		t.Fatalf("%+v", u)
	}
	_ = still
	// A plug that was off and is switched on does not jump.
	for range 60 {
		status(0, 1611.7)
		b.take(time.Minute)
	}
	status(2000, 1612)
	b.take(time.Second)
	b.now = b.now.Add(59 * time.Second)
	status(2000, 1645)
	since("")
}

// naive computes the lifetime energy from all readings: the sum of the last readings of
// the counter's lives. A reading that is lower than the one before by more than 1 Wh
// begins a new life, unless a later one has the old value again, in time or in one step.
func naive(readings []reading) (total, counter float64, known bool) {
	type life struct {
		peak  float64       // of the life before this one
		begun time.Duration // when it seemed to begin
		base  float64       // the sum of the lives before, less the first reading of this one
	}
	lives := []life{{peak: math.Inf(1)}}
	var now, heard time.Duration
	for _, r := range readings {
		now += r.after
		if math.IsNaN(r.counter) {
			continue
		}
		switch {
		case !known:
			counter = r.counter
		case r.counter >= counter:
			step, watts := r.counter-counter, (r.counter-counter-1)/max((now-heard).Hours(), 1e-9)
			for i, l := range lives {
				if i == 0 || counter >= l.peak-1 || r.counter < l.peak-1 || now-l.begun > 24*time.Hour {
					continue
				}
				if now-l.begun <= 10*time.Minute || step >= l.peak/2 || watts > 25_000 {
					lives = lives[:i] // it never began
					r.counter = max(r.counter, l.peak)
				} else {
					lives = append(lives[:i:i], lives[len(lives)-1])
					lives[i].peak = 0 // it began for good
				}
				break
			}
			counter = r.counter
		case r.counter < counter-1:
			l := life{peak: counter, begun: now, base: total}
			if r.counter >= counter/2 {
				l.base -= r.counter
			}
			lives = append(lives, l)
			counter = r.counter
		}
		known, heard = true, now
		total = max(total, lives[len(lives)-1].base+counter)
	}
	return total, counter, known
}

// Random histories of counters: lives that begin at 0 and count, with zeros and rounding
// between, while holders come and go. The total never falls, and in the end it equals that
// of the naive reference.
func TestEnergyAgreesWithNaiveReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := newHolder()
		counter := rapid.Float64Range(0, 1e6).Draw(t, "counter")
		history := []reading{{time.Minute, domain.RoundEnergy(counter)}}
		say := func(after time.Duration, shown float64) {
			history = append(history, reading{after, domain.RoundEnergy(shown)})
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			pause := time.Duration(rapid.IntRange(1, 120).Draw(t, "seconds")) * time.Second
			counter += rapid.Float64Range(0, 100).Draw(t, "used")
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0: // zeros, and then the old total or more
				for range rapid.IntRange(1, 4).Draw(t, "zeros") {
					say(time.Duration(rapid.IntRange(1, 60).Draw(t, "zero for")*int(time.Second)), 0)
				}
				say(time.Second, counter)
			case 1: // a reset: a long time passes before it is back where it was
				say(pause, counter)
				counter = rapid.Float64Range(0, 0.4).Draw(t, "after the reset") * min(counter, 20)
				say(time.Second, counter)
				say(30*time.Hour, counter)
			case 2: // rounding
				say(pause, counter)
				say(pause, counter-min(counter, rapid.Float64Range(0, 0.99).Draw(t, "rounding")))
			case 3: // a gap
				say(time.Duration(rapid.IntRange(1, 48).Draw(t, "hours"))*time.Hour, counter)
			default:
				say(pause, counter)
			}
		}
		last := 0.0
		for _, r := range history {
			h.read(r)
			if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
				h.restart(t)
			}
			total, _ := h.total.Get()
			if total < last {
				t.Fatalf("the total fell from %v to %v", last, total)
			}
			if total != domain.RoundEnergy(total) {
				t.Fatalf("%v has noise", total)
			}
			if len(h.falls) > maxFalls {
				t.Fatalf("%d falls are remembered", len(h.falls))
			}
			last = total
		}
		if want, _, _ := naive(history); math.Abs(last-want) > 0.0015*float64(len(history)) {
			t.Fatalf("the total is %v, want %v", last, want)
		}
	})
}

// A correction shifts the holder's total and the remembered falls.
func TestEnergyGoesOnFromACorrection(t *testing.T) {
	t.Parallel()
	for _, hears := range []bool{false, true} {
		b := setup(t)
		b.full(`{"switch:0":{"output":true,"aenergy":{"total":100}}}`)
		b.take(0)
		b.delta(`{"switch:0":{"aenergy":{"total":0}}}`)
		b.take(time.Minute)
		e, err := domain.NewEvent(cred.System, domain.EnergyCorrected{CommandID: "c", DeviceID: plug, EnergyWh: 5000}, domain.Cause{})
		if err != nil {
			t.Fatal(err)
		}
		e.Time, e.Position = b.now, domain.Position{Ms: b.state.Cursor.Position.Ms + 1}
		if _, err := b.state.Apply(&e); err != nil {
			t.Fatal(err)
		}
		if hears {
			b.Correct([]*domain.Device{b.state.Devices[plug], {DeviceID: "another"}, {DeviceID: plug + ":7"}})
			if at, waits := b.Due(); waits {
				t.Fatalf("nothing changed, and yet due at %v", at)
			}
		}
		b.delta(`{"switch:0":{"aenergy":{"total":101.5}}}`)
		u := b.takeUnchecked(time.Minute)
		if said, _ := u[0].EnergyWh.Get(); hears && said != 5001.5 || !hears && said != 101.5 {
			t.Errorf("hears %v: the update says %v", hears, said)
		}
		b.want(plug, map[string]string{"energyWh": "5001.5", "energyOffsetWh": "4900"})
		b.restart()
		b.full(`{"switch:0":{"output":true,"aenergy":{"total":103}}}`)
		b.take(time.Minute)
		b.want(plug, map[string]string{"energyWh": "5003"})
	}
}

// The total continues from a correction also when there was no counter before, both for a
// holder that gets the correction and for the next one.
func TestEnergyGoesOnFromACorrectionBeforeTheFirstCounter(t *testing.T) {
	t.Parallel()
	for _, restarts := range []bool{false, true} {
		b := setup(t)
		b.full(`{"switch:0":{"output":true}}`)
		b.take(0)
		e, err := domain.NewEvent(cred.System, domain.EnergyCorrected{CommandID: "c", DeviceID: plug, EnergyWh: 5000}, domain.Cause{})
		if err != nil {
			t.Fatal(err)
		}
		e.Time, e.Position = b.now, domain.Position{Ms: b.state.Cursor.Position.Ms + 1}
		if _, err := b.state.Apply(&e); err != nil {
			t.Fatal(err)
		}
		b.Correct([]*domain.Device{b.state.Devices[plug]})
		if at, waits := b.Due(); waits {
			t.Fatalf("nothing changed, and yet due at %v", at)
		}
		if restarts {
			b.restart()
		}
		b.full(`{"switch:0":{"output":true,"aenergy":{"total":700.5}}}`)
		b.take(time.Minute)
		b.want(plug, map[string]string{"energyWh": "5000"})
		b.delta(`{"switch:0":{"aenergy":{"total":701}}}`)
		b.take(time.Minute)
		b.want(plug, map[string]string{"energyWh": "5000.5", "energyOffsetWh": "5000"})
	}
}

// An event about the silence of a device does not shorten the silence.
func TestEnergyAfterASilenceThatWasNoticed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.full(`{"switch:0":{"output":true,"apower":60,"aenergy":{"total":100}}}`)
	b.take(0)
	seen := b.now
	b.now = b.now.Add(30 * time.Minute)
	b.state.Devices[plug].UpdatedAt = b.now // as by an energy-corrected, or by a notice
	b.restart()
	b.full(`{"switch:0":{"output":true,"apower":60,"aenergy":{"total":130}}}`)
	b.take(time.Minute)
	b.want(plug, map[string]string{"energyWh": "130", "energySince": `"` + seen.Format(time.RFC3339) + `"`})
}
