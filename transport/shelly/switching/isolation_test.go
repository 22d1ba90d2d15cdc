package switching

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// A system for which it cannot be said who holds its devices does not keep the
// referee from another system's commands.
func TestOneSystemHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		answers := b.desk.parts.Elsewhere
		b.desk.parts.Elsewhere = func(ctx context.Context, d shelly.DeviceRef) (bool, error) {
			if d.System != system {
				<-ctx.Done()
				return false, ctx.Err()
			}
			return answers(ctx, d)
		}
		defer b.referee()()
		for _, hanging := range []domain.SystemID{"hangs-1", "hangs-2", "hangs-3"} {
			e, err := domain.NewEvent(hanging, domain.RelaySwitchRequested{CommandID: "of-" + string(hanging), DeviceID: plug, On: true}, domain.Cause{})
			if err != nil {
				t.Fatal(err)
			}
			e.Position = domain.Position{Ms: uint64(time.Now().UnixMilli())}
			if err := b.desk.Requested(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, b.run(expiry+2*lookAround), domain.OutcomeFailed)
	})
}

// hangingLog is a log that takes nothing of one system.
type hangingLog struct {
	hangs domain.SystemID

	mu      sync.Mutex
	waiting int
	most    int
	taken   map[domain.SystemID]int
}

// Append implements domain.Appender.
func (l *hangingLog) Append(ctx context.Context, events []domain.Event, _ domain.AppendOptions) (domain.Appended, error) {
	of := events[0].SystemID
	l.mu.Lock()
	defer l.mu.Unlock()
	if of != l.hangs {
		l.taken[of]++
		return domain.Appended{Positions: []domain.Position{{Ms: 1}}}, nil
	}
	l.waiting++
	l.most = max(l.most, l.waiting)
	l.mu.Unlock()
	<-ctx.Done()
	l.mu.Lock()
	l.waiting--
	return domain.Appended{}, ctx.Err()
}

// What one system has to write and cannot is bounded, and takes nothing from the
// others.
func TestOutcomesOfOneSystemHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &hangingLog{hangs: "hangs", taken: map[domain.SystemID]int{}}
		desk := New(Parts{Log: log, Logger: slog.New(slog.DiscardHandler)})
		defer desk.Close()
		put := func(of domain.SystemID, n int) {
			for i := range n {
				c := shelly.SwitchCommand{DeviceRef: shelly.DeviceRef{System: of, Device: plug}, CommandID: fmt.Sprint(of, i)}
				desk.outcomes.put(c, shelly.SwitchResult{Outcome: domain.OutcomeCompleted})
			}
		}
		const others, each = 100, 50
		put("hangs", 5000)
		for n := range others {
			put(domain.SystemID(fmt.Sprint("well-", n)), each)
		}
		synctest.Wait()
		log.mu.Lock()
		if log.waiting != outcomeWriters || len(log.taken) != others || log.taken["well-7"] != each {
			t.Errorf("%d are being written for the system that hangs; %d others had theirs", log.waiting, len(log.taken))
		}
		log.mu.Unlock()
		desk.outcomes.mu.Lock()
		if q := desk.outcomes.systems["hangs"]; len(desk.outcomes.systems) != 1 || len(q.waiting) != maxOutcomes || q.dropped != 5000-outcomeWriters-maxOutcomes {
			t.Errorf("%d systems are kept, %d outcomes wait, %d were left to the referee", len(desk.outcomes.systems), len(q.waiting), q.dropped)
		}
		desk.outcomes.mu.Unlock()
		time.Sleep(outcomeTimeout) // the bubble's clock: all were reported at once, so all end at once
		synctest.Wait()
		log.mu.Lock()
		defer log.mu.Unlock()
		if log.waiting != 0 || log.most != outcomeWriters || len(desk.outcomes.systems) != 0 {
			t.Errorf("%d wait after their time; %d did at once", log.waiting, log.most)
		}
	})
}
