package shadow

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// seen makes an event with five members that differ from those of all other events.
func seen(device string, n int, seconds float64) Observation {
	members := map[string]any{"deviceId": device}
	for _, name := range []string{"a", "b", "c", "d"} {
		members[name] = float64(n)
	}
	return Observation{Event: "device-update", Device: device, At: at(seconds), Members: members, Ref: fmt.Sprintf("%s/%d", device, n)}
}

// describe formats a finding as a line.
func describe(f Finding) string {
	ref := func(o *Observation) string {
		if o == nil {
			return "-"
		}
		return o.Ref
	}
	if f.Kind == Gap {
		return fmt.Sprintf("gap %d %s to %s", f.Side, f.From.Sub(start), f.To.Sub(start))
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s", f.Kind, ref(f.Here), ref(f.There), strings.Join(f.Members, ",")))
}

func lines(findings []Finding) []string {
	out := []string{}
	for _, f := range findings {
		out = append(out, describe(f))
	}
	sort.Strings(out)
	return out
}

func check(t *testing.T, c *Comparer, want ...string) {
	t.Helper()
	c.Advance(at(100_000))
	sort.Strings(want)
	if got := lines(c.Take()); !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if c.pending != 0 || len(c.queues) != 0 {
		t.Errorf("%d events still wait of %d devices", c.pending, len(c.queues))
	}
}

func TestOnlyMembersOfTheOtherSideCount(t *testing.T) {
	t.Parallel()
	c := New(Config{Ignore: []string{"timestamp"}})
	there := map[string]any{"deviceId": "d", "relayOn": true, "timestamp": 1.0}
	here := map[string]any{"deviceId": "d", "relayOn": true, "changed": []any{}}
	c.Observe(There, Observation{Event: "e", Device: "d", At: at(0), Members: there})
	c.Observe(Here, Observation{Event: "e", Device: "d", At: at(0.1), Members: here})
	check(t, c)
	if c.Counts().Same != 1 {
		t.Errorf("%+v", c.Counts())
	}
}

func TestLateAndReordered(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	c.Observe(Here, seen("d", 1, 0))
	c.Observe(There, seen("d", 1, 5))
	c.Observe(Here, seen("d", 2, 10))
	c.Observe(Here, seen("d", 3, 10.1))
	c.Observe(There, seen("d", 3, 10.2))
	c.Observe(There, seen("d", 2, 10.3))
	check(t, c, "late d/1 d/1", "reordered d/2 d/2")
}

// An event must not be paired with a similar one while its equal may still come.
func TestNoHastyPairs(t *testing.T) {
	t.Parallel()
	c := New(Config{Compare: []string{"deviceId", "a"}})
	lost, kept := seen("d", 1, 0), seen("d", 2, 29.9)
	c.Observe(Here, lost)
	c.Observe(There, kept)
	c.Advance(at(30.1))
	kept.At = at(30.2)
	c.Observe(Here, kept)
	check(t, c, "only-here d/1 -")
}

func TestGaps(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	c.Observe(Here, seen("d", 1, 0)) // never comes on the other side
	c.Down(There, at(10))
	c.Observe(Here, seen("d", 2, 11))
	c.Observe(Here, seen("d", 3, 100))
	c.Advance(at(200))
	if got := c.Counts(); got != (Counts{}) || c.pending != 3 { // a counterpart may still come for each
		t.Errorf("before the end of the gap: %+v, %d wait", got, c.pending)
	}
	c.Up(There, at(200), false)
	c.Observe(Here, seen("d", 4, 200.5)) // its counterpart may have come just before
	c.Observe(Here, seen("d", 5, 210))
	c.Observe(There, seen("d", 5, 210.1))
	check(t, c, "only-here d/1 -", "gap 1 10s to 3m20s")
	if got := c.Counts(); got.Uncompared != 3 || got.Same != 1 {
		t.Errorf("%+v", got)
	}

	c = New(Config{})
	c.Down(There, at(10))
	for n := range 20 {
		c.Observe(Here, seen("d", n, 11+float64(n)))
	}
	c.Advance(at(300))
	c.Up(There, at(300), true)
	for n := range 20 {
		if n != 7 {
			c.Observe(There, seen("d", n, 301))
		}
	}
	check(t, c, "only-here d/7 -")
}

// The comparer finds exactly the known differences of two streams, however they interleave.
func TestKnownEdits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type arrival struct {
			side Side
			Observation
		}
		var arrivals []arrival
		want := []string{}
		same := 0
		delay := func() float64 { return rapid.Float64Range(0, 1.9).Draw(t, "delay") }
		for d := range rapid.IntRange(1, 4).Draw(t, "devices") {
			device := fmt.Sprint("d", d)
			var last [2]float64
			add := func(side Side, o Observation, seconds float64) {
				last[side] = max(last[side], seconds) // each side is in order
				o.At = at(last[side])
				arrivals = append(arrivals, arrival{side, o})
			}
			now := 0.0
			for n := range rapid.IntRange(0, 40).Draw(t, "events") {
				now += rapid.Float64Range(0, 20).Draw(t, "pause")
				o := seen(device, n, now)
				switch rapid.SampledFrom([]string{"same", "same", "same", "drop-there", "drop-here", "change"}).Draw(t, "edit") {
				case "same":
					add(Here, o, now)
					add(There, o, now+delay())
					same++
				case "drop-there":
					add(Here, o, now)
					want = append(want, "only-here "+o.Ref+" -")
				case "drop-here":
					add(There, o, now)
					want = append(want, "only-there - "+o.Ref)
				case "change":
					add(Here, o, now)
					changed := o
					changed.Members = maps.Clone(o.Members)
					changed.Members["a"] = -1.0 - float64(n)
					add(There, changed, now+delay())
					want = append(want, "different "+o.Ref+" "+o.Ref+" a")
				}
			}
		}
		sort.SliceStable(arrivals, func(i, j int) bool { return arrivals[i].At.Before(arrivals[j].At) })
		c := New(Config{Late: 3 * time.Second})
		for _, a := range arrivals {
			if rapid.IntRange(0, 3).Draw(t, "tick") == 0 {
				c.Advance(a.At)
			}
			c.Observe(a.side, a.Observation)
		}
		c.Advance(at(100_000))
		sort.Strings(want)
		if got := lines(c.Take()); !slices.Equal(got, want) {
			t.Fatalf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if c.Counts().Same != uint64(same) || c.pending != 0 {
			t.Fatalf("%+v, %d wait; want %d the same", c.Counts(), c.pending, same)
		}
	})
}

// For any input, memory is bounded and each event is counted once.
func TestBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := New(Config{MaxPending: 20, MaxPerDevice: 6})
		now, total := 0.0, uint64(0)
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			now += rapid.Float64Range(0, 10).Draw(t, "pause")
			side := Side(rapid.IntRange(0, 1).Draw(t, "side"))
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				c.Down(side, at(now))
			case 1:
				c.Up(side, at(now), rapid.Bool().Draw(t, "recovered"))
			case 2:
				c.Advance(at(now))
			default:
				total++
				c.Observe(side, seen(fmt.Sprint("d", rapid.IntRange(0, 9).Draw(t, "device")), rapid.IntRange(0, 5).Draw(t, "n"), now))
			}
			if c.pending > 20 {
				t.Fatalf("%d wait", c.pending)
			}
		}
		c.Up(Here, at(now), false)
		c.Up(There, at(now), false)
		c.Advance(at(now + 1000))
		n := c.Counts()
		if got := 2*(n.Same+n.Late+n.Reordered+n.Different) + n.OnlyHere + n.OnlyThere + n.Uncompared; got != total || c.pending != 0 {
			t.Fatalf("%d of %d events are accounted for, %d wait: %+v", got, total, c.pending, n)
		}
	})
}

// Advance compares each pair of events of a device only once, because other devices wait for it.
// The test counts allocations, and so does not run in parallel.
func TestManyDifferences(t *testing.T) {
	const each = DefaultMaxPerDevice
	var c *Comparer
	fill := func() {
		c = New(Config{})
		for n := range each {
			for _, side := range []Side{Here, There} {
				o := seen("d", 0, float64(n)/1000)
				o.Members["d"] = fmt.Sprint(side, n) // one of five differs, for each with each
				c.Observe(side, o)
			}
		}
	}
	fill()
	n := testing.AllocsPerRun(1, func() { c.Advance(at(1000)); fill() }) - testing.AllocsPerRun(1, fill)
	if most := 2.0 * each * each; n > most {
		t.Errorf("%v allocations to settle %d events, more than %v", n, 2*each, most)
	}
	c.Advance(at(1000))
	if got := c.Counts().Different; got != each {
		t.Errorf("%d are different, not %d", got, each)
	}
}

func BenchmarkManyDifferences(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		c := New(Config{})
		for n := range DefaultMaxPerDevice {
			for _, side := range []Side{Here, There} {
				o := seen("d", 0, float64(n)/1000)
				o.Members["d"] = fmt.Sprint(side, n)
				c.Observe(side, o)
			}
		}
		b.StartTimer()
		c.Advance(at(1000))
	}
}
