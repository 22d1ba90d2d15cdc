package rooms

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
)

var arrival = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)

// An update is dropped exactly if the newer one has every field that it has, whichever
// fields those are.
func TestConflationLeavesOutWhatIsCovered(t *testing.T) {
	t.Parallel()
	clocks := []domain.Optional[time.Time]{domain.Some(arrival), domain.Some(arrival.Add(time.Second))}
	reading := func(value float64, at domain.Optional[time.Time]) domain.DeviceUpdate {
		return domain.DeviceUpdate{
			DeviceID: "plug-1", Online: domain.Some(true), RelayOn: domain.Some(true), Channel: domain.Some(0),
			PowerW: domain.Some(value), VoltageV: domain.Some(value), CurrentA: domain.Some(value), FrequencyHz: domain.Some(value),
			PowerFactor: domain.Some(value), EnergyWh: domain.Some(value), CounterWh: domain.Some(value),
			EnergySince: domain.Some(arrival), EnergyOffsetWh: domain.Some(value), CounterFalls: domain.Some([]domain.CounterFall{}),
			TemperatureC: domain.Some(value),
			Source:       domain.Some("init"), Errors: domain.Some([]string{}), DeviceTime: at, ConnectionID: domain.Some(domain.ConnectionID("c")),
			Name: domain.Some("laser"), Attributes: []byte(`{"wifi":{}}`), Changed: []string{"powerW"},
		}
	}
	older, newer := reading(1, clocks[0]), reading(2, clocks[1])
	if left := leftOut(t, older, newer); !left {
		t.Error("a whole reading was sent, though the one after it says all that it said")
	}
	for _, f := range domain.DeviceFields {
		if !f.IsPresent(&older) {
			t.Errorf("the reading in this test lacks %s", f.Name)
		}
		lacking := newer
		f.Copy(&lacking, &domain.DeviceUpdate{})
		// Without a time of its own an update is always folded, but the time is not said.
		if leftOut(t, older, lacking) {
			t.Errorf("an update with %s was left out for one without", f.Name)
		}
		only := domain.DeviceUpdate{DeviceID: "plug-1", Online: domain.Some(true)}
		f.Copy(&only, &older)
		if f.Name != "deviceTime" {
			newer := newer
			newer.DeviceTime = domain.Optional[time.Time]{} // with a time it could be stale, and the older one has none
			if !leftOut(t, only, newer) {
				t.Errorf("an update of %s alone was sent, though the one after it says more", f.Name)
			}
		}
	}
}

// leftOut reports whether conflation drops the first of two updates.
func leftOut(t *testing.T, older, newer domain.DeviceUpdate) bool {
	t.Helper()
	var c conflation
	for i, u := range []domain.DeviceUpdate{older, newer} {
		e, err := domain.NewEvent("clinica-sol", u, domain.Cause{Actor: "test"})
		if err != nil {
			t.Fatal(err)
		}
		e.Seq, e.Position, e.Time = uint64(i+1), domain.Position{Ms: uint64(i + 1)}, arrival
		c.add(encode(&e))
	}
	events, _ := c.take(1 << 20)
	return len(events) == 1
}

// TestConflationKeepsTheState conflates many random windows of one device, with everything
// that makes the fold ignore an update, and cuts them at random places. It checks the same
// property as checkConflated, on more cases than a whole world can try.
func TestConflationKeepsTheState(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6_000) {
		random := rand.New(rand.NewPCG(seed, 2))
		events := make([]domain.Event, 3+random.IntN(9))
		for i := range events {
			events[i] = randomUpdate(t, random, uint64(i+1))
		}
		limit := 200 + random.IntN(2500)
		all, sent := domain.NewState("clinica-sol"), domain.NewState("clinica-sol")
		for from := 0; from < len(events); {
			to := from + 1 + random.IntN(len(events)-from)
			var c conflation
			for _, e := range encodeAll(events[from:to]) {
				c.add(e)
				if random.IntN(3) == 0 {
					c.compact()
				}
			}
			taken, rest := c.take(limit)
			if last := taken[len(taken)-1].Cursor.Seq; rest {
				from = int(last)
			} else if from = to; last != uint64(to) {
				t.Fatalf("seed %d: the last of %d events was left out", seed, to)
			}
			for _, e := range taken {
				mustApply(t, sent, events[e.Cursor.Seq-1])
			}
		}
		for _, e := range events {
			mustApply(t, all, e)
		}
		if a, b := devicesOf(all), devicesOf(sent); a != b {
			t.Fatalf("seed %d: everything folds to\n%s\nand what was sent to\n%s", seed, a, b)
		}
	}
}

func randomUpdate(t *testing.T, random *rand.Rand, seq uint64) domain.Event {
	t.Helper()
	u := domain.DeviceUpdate{DeviceID: "plug-1"}
	if random.IntN(3) > 0 {
		u.RelayOn = domain.Some(random.IntN(2) == 0)
	}
	if random.IntN(3) > 0 {
		u.EnergyWh = domain.Some(float64(random.IntN(1000)))
	}
	if random.IntN(3) > 0 {
		u.PowerW = domain.Some(float64(random.IntN(1000)))
	}
	if random.IntN(3) == 0 {
		u.Online = domain.Some(random.IntN(2) == 0)
	}
	switch random.IntN(8) {
	case 0, 1:
		u.DeviceTime = domain.Null[time.Time]()
	case 2, 3, 4:
		u.DeviceTime = domain.Some(arrival.Add(time.Duration(1+random.IntN(5)) * time.Second))
	case 5:
		u.DeviceTime = domain.Some(arrival.AddDate(73, 0, random.IntN(3)))
	case 6:
		u.DeviceTime = domain.Some(time.Unix(int64(random.IntN(5)), 0).UTC())
	}
	var data domain.Data = u
	if random.IntN(8) == 0 {
		data = domain.EnergyCorrected{CommandID: "c", DeviceID: u.DeviceID, EnergyWh: float64(random.IntN(1000))}
	}
	e, err := domain.NewEvent("clinica-sol", data, domain.Cause{Actor: "test"})
	if err != nil {
		t.Fatal(err)
	}
	e.Time = arrival.Add(time.Duration(seq) * time.Second)
	e.ID, e.Seq, e.Position = fmt.Sprint(seq), seq, domain.Position{Ms: seq}
	return e
}

func mustApply(t *testing.T, s *domain.State, e domain.Event) {
	t.Helper()
	e.Seq = 0
	if _, err := s.Apply(&e); err != nil {
		t.Fatal(err)
	}
}
