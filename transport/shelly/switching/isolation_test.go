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

// A system whose look-ups hang does not delay the ending of another system's commands.
func TestOneSystemHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		answers := b.dispatcher.parts.Elsewhere
		b.dispatcher.parts.Elsewhere = func(ctx context.Context, d domain.DeviceRef) (bool, error) {
			if d.System != system {
				<-ctx.Done()
				return false, ctx.Err()
			}
			return answers(ctx, d)
		}
		defer b.runTimeouts()()
		for _, hanging := range []domain.SystemID{"hangs-1", "hangs-2", "hangs-3"} {
			requested := domain.RelaySwitchRequested{CommandID: "of-" + string(hanging), DeviceID: plug, On: true}
			e, err := domain.NewEvent(hanging, requested, domain.Cause{})
			if err != nil {
				t.Fatal(err)
			}
			e.Position = domain.Position{Ms: uint64(time.Now().UnixMilli())}
			if err := b.dispatcher.Requested(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, b.run(expiry+2*checkEvery), domain.OutcomeFailed)
	})
}

// hangingLog is a log whose appends hang for one system.
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

// The outcomes of a system whose appends hang are bounded, and delay no other system.
func TestOutcomesOfOneSystemHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &hangingLog{hangs: "hangs", taken: map[domain.SystemID]int{}}
		dispatcher := New(Parts{Log: log, Logger: slog.New(slog.DiscardHandler)})
		defer dispatcher.Close()
		put := func(of domain.SystemID, n int) {
			for i := range n {
				c := shelly.SwitchCommand{DeviceRef: domain.DeviceRef{System: of, Device: plug}, CommandID: fmt.Sprint(of, i)}
				dispatcher.outcomes.add(c, shelly.SwitchResult{Outcome: domain.OutcomeCompleted})
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
		dispatcher.outcomes.mu.Lock()
		systems := dispatcher.outcomes.systems
		if q := systems["hangs"]; len(systems) != 1 || len(q.waiting) != maxOutcomes || q.dropped != 5000-outcomeWriters-maxOutcomes {
			t.Errorf("%d systems are kept, %d outcomes wait, %d were dropped", len(systems), len(q.waiting), q.dropped)
		}
		dispatcher.outcomes.mu.Unlock()
		time.Sleep(outcomeTimeout) // the bubble's clock: all were reported at once, so all end at once
		synctest.Wait()
		log.mu.Lock()
		defer log.mu.Unlock()
		if log.waiting != 0 || log.most != outcomeWriters || len(dispatcher.outcomes.systems) != 0 {
			t.Errorf("%d wait after their time; %d did at once", log.waiting, log.most)
		}
	})
}
