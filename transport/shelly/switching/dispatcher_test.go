package switching

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

const (
	system domain.SystemID = "clinica-sol"
	plug   domain.DeviceID = "shellyplugsg3-8cbfea9a1b2c"
)

// bundle is a dispatcher on a log in memory that honours idempotency keys.
type bundle struct {
	t          *testing.T
	dispatcher *Dispatcher

	mu       sync.Mutex
	keys     map[string]bool
	outcomes []domain.RelaySwitchCompleted
	recent   []domain.Event
	claims   map[string]string // by command id
	held     bool              // by this process
	far      bool              // another deployment was the last to hear of the device
	away     bool              // the log is
	unsure   bool              // claims cannot be reached
	holding  func(shelly.SwitchCommand, func(shelly.SwitchResult)) bool
	asked    int
}

func newBundle(t *testing.T) *bundle {
	b := &bundle{t: t, keys: map[string]bool{}, claims: map[string]string{}}
	b.dispatcher = New(Parts{
		Log: b, Holders: []shelly.Holder{b}, Logger: slog.New(slog.DiscardHandler),
		Claims: b,
		Elsewhere: func(context.Context, domain.DeviceRef) (bool, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.far, nil
		},
		Recent:    func(context.Context, int, time.Time) ([]domain.Event, error) { return b.recent, nil },
		Partition: func(domain.SystemID) int { return 3 },
	})
	t.Cleanup(b.dispatcher.Close)
	return b
}

// Correct implements shelly.Holder.
func (b *bundle) Correct(domain.DeviceRef, []*domain.Device) {}

// Holds implements shelly.Holder.
func (b *bundle) Holds(domain.DeviceRef) bool { return b.held || b.holding != nil }

// Take implements Claims.
func (b *bundle) Take(_ context.Context, _ domain.SystemID, id string) (bool, error) {
	return b.claim(id, "taken")
}

// Close implements Claims.
func (b *bundle) Close(_ context.Context, _ domain.SystemID, id string) (bool, error) {
	return b.claim(id, "closed")
}

func (b *bundle) claim(id, says string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unsure {
		return false, errors.New("claims are away")
	}
	if b.claims[id] == "" {
		b.claims[id] = says
	}
	return b.claims[id] == says, nil
}

// Switch implements shelly.Holder.
func (b *bundle) Switch(c shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	return b.holding != nil && b.holding(c, report)
}

// Append implements domain.Appender.
func (b *bundle) Append(_ context.Context, events []domain.Event, o domain.AppendOptions) (domain.Appended, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return domain.Appended{}, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "away")
	}
	if b.keys[o.Idempotency.Key] {
		return domain.Appended{Replayed: true}, nil
	}
	b.keys[o.Idempotency.Key] = true
	data, err := events[0].Decode()
	if err != nil {
		return domain.Appended{}, err
	}
	if events[0].CausationID != "cmd-1" || events[0].CorrelationID != "corr" {
		return domain.Appended{}, errors.New("an outcome without its cause")
	}
	b.outcomes = append(b.outcomes, data.(domain.RelaySwitchCompleted))
	return domain.Appended{Positions: []domain.Position{{Ms: 1}}}, nil
}

// runTimeouts runs the timeouts until stop is called.
func (b *bundle) runTimeouts() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.dispatcher.RunTimeouts(ctx, 3) })
	synctest.Wait()
	return func() {
		cancel()
		running.Wait()
	}
}

func request(t *testing.T) domain.Event {
	e, err := domain.NewEvent(system, domain.RelaySwitchRequested{CommandID: "cmd-1", DeviceID: plug, On: true, ToggleAfterS: 2},
		domain.Cause{CorrelationID: "corr", CausationID: "cmd-1"})
	if err != nil {
		t.Fatal(err)
	}
	e.Position = domain.Position{Ms: uint64(time.Now().UnixMilli())}
	return e
}

// run requests a switch, lets time pass, and returns the outcomes.
func (b *bundle) run(lets time.Duration) []domain.Outcome {
	b.t.Helper()
	if err := b.dispatcher.Requested(b.t.Context(), request(b.t)); err != nil {
		b.t.Fatal(err)
	}
	time.Sleep(lets) // the bubble's clock
	synctest.Wait()
	return b.results()
}

func (b *bundle) results() (outcomes []domain.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.outcomes {
		outcomes = append(outcomes, o.Outcome)
	}
	return outcomes
}

func expect(t *testing.T, got []domain.Outcome, want ...domain.Outcome) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("outcomes %q, want %q", got, want)
	}
}

func TestHolderAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		b.holding = func(c shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
			if c.Device != plug || !c.On || c.ToggleAfter != 2*time.Second || !c.Expires.After(time.Now()) {
				t.Errorf("asked for %+v", c)
			}
			go report(shelly.SwitchResult{Outcome: domain.OutcomeCompleted})
			return true
		}
		defer b.runTimeouts()()
		expect(t, b.run(time.Minute), domain.OutcomeCompleted)
	})
}

func TestNobodyHoldsTheDevice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		defer b.runTimeouts()()
		expect(t, b.run(expiry-100*time.Millisecond))
		time.Sleep(time.Second)
		expect(t, b.results(), domain.OutcomeFailed)
	})
}

func TestHolderElsewhereDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		b.claims["cmd-1"] = "taken"
		defer b.runTimeouts()()
		expect(t, b.run(DefaultLimit-time.Second))
		time.Sleep(2 * time.Second)
		expect(t, b.results(), domain.OutcomeUnknown)
	})
}

func TestLateAnswerIsNotASecondOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		b.holding = func(_ shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
			time.AfterFunc(time.Minute, func() { report(shelly.SwitchResult{Outcome: domain.OutcomeCompleted}) })
			return true
		}
		defer b.runTimeouts()()
		expect(t, b.run(2*time.Minute), domain.OutcomeUnknown)
	})
}

func TestNewOwnerEndsOpenCommands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		b.recent = []domain.Event{request(t)}
		time.Sleep(30 * time.Second)
		defer b.runTimeouts()()
		time.Sleep(time.Second)
		expect(t, b.results(), domain.OutcomeUnknown)
	})
}

// A device that was not connected when its command was given, and is when the command
// expires, never received it: the command fails all the same.
func TestDeviceIsBackTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		defer b.runTimeouts()()
		expect(t, b.run(expiry/2))
		b.mu.Lock()
		b.held = true
		b.mu.Unlock()
		time.Sleep(expiry/2 + 2*checkEvery)
		expect(t, b.results(), domain.OutcomeFailed)
		if b.asked != 0 {
			t.Error("a holder was asked")
		}
	})
}

// A process that reads a command after the owner closed it does not send it, even if
// its own clock would allow that.
func TestClosedCommandIsNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		b.held, b.claims["cmd-1"] = true, "closed"
		defer b.runTimeouts()()
		expect(t, b.run(expiry+2*checkEvery), domain.OutcomeFailed)
		if b.asked != 0 {
			t.Error("a holder was asked")
		}
	})
}

// A command that cannot be taken is not sent, and fails. So does one whose device goes
// between the taking and the sending.
func TestCommandThatCannotBeSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		b.held, b.unsure = true, true
		expect(t, b.run(time.Second), domain.OutcomeFailed)
		if b.asked != 0 {
			t.Error("a holder was asked")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		b.held = true
		expect(t, b.run(time.Second), domain.OutcomeFailed)
		if b.asked != 1 {
			t.Errorf("%d holders were asked", b.asked)
		}
	})
}

// A process that was frozen does not send an old command when it wakes.
func TestThawedProcessSwitchesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		e := request(t)
		time.Sleep(expiry + time.Second)
		if err := b.dispatcher.Requested(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if b.asked != 0 {
			t.Error("a holder was asked")
		}
	})
}

func TestOutcomeWaitsForTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		b.away = true
		b.holding = func(_ shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
			report(shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: "overpower"})
			return true
		}
		expect(t, b.run(3*time.Second))
		b.mu.Lock()
		b.away = false
		b.mu.Unlock()
		time.Sleep(500 * time.Millisecond) // the longest pause between two attempts to append
		expect(t, b.results(), domain.OutcomeFailed)
	})
}

// For a command from a bridge, the deployment that holds the device switches it, and
// the one that the device belongs to reports when it is not connected. No other reports.
func TestForeignCommand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		given     time.Duration // before it came here, by the other clock
		held, far bool
		want      []domain.Outcome
	}{
		"held here":              {given: time.Second, held: true, want: []domain.Outcome{domain.OutcomeCompleted}},
		"held here and too late": {given: time.Minute, held: true},
		"ours and not connected": {given: time.Second, want: []domain.Outcome{domain.OutcomeFailed}},
		"another's":              {given: time.Second, far: true},
		"from a clock ahead":     {given: -time.Minute, held: true, want: []domain.Outcome{domain.OutcomeCompleted}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBundle(t)
				b.far = c.far
				if c.held {
					b.holding = func(_ shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
						go report(shelly.SwitchResult{Outcome: domain.OutcomeCompleted})
						return true
					}
				}
				defer b.runTimeouts()()
				e := request(t)
				e.Origin, e.Time = "far", time.Now().Add(-c.given)
				if err := b.dispatcher.Requested(t.Context(), e); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * DefaultLimit) // the bubble's clock
				synctest.Wait()
				expect(t, b.results(), c.want...)
			})
		})
	}
}

// A command for a device of another deployment waits for that one's answer, and ends
// as unknown without one.
func TestOwnCommandForADeviceElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		b.far = true
		defer b.runTimeouts()()
		expect(t, b.run(DefaultLimit-time.Second))
		time.Sleep(2 * time.Second) // the bubble's clock
		synctest.Wait()
		expect(t, b.results(), domain.OutcomeUnknown)
	})
}
