package rooms

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// TestConflationKeepsTheState conflates many random windows of one device, with
// all that makes the fold ignore an update, and cuts them at random. It is the
// same demand as checkConflated's, on more cases than a whole world can try.
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
		u.PowerW = domain.Some(float64(random.IntN(1000)))
	}
	switch random.IntN(4) {
	case 0:
		u.DeviceTime = domain.Null[time.Time]()
	case 1, 2:
		u.DeviceTime = domain.Some(time.Unix(int64(1+random.IntN(5)), 0).UTC())
	}
	e, err := domain.NewEvent("clinica-sol", u, domain.Cause{Actor: "test"})
	if err != nil {
		t.Fatal(err)
	}
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
