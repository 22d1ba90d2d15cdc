package switching

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

const (
	// outcomeWriters is how many outcomes of a system are written at a time.
	outcomeWriters = 8
	// maxOutcomes is how many of a system wait. More than that come only while the
	// log does not take them; the referee ends those commands.
	maxOutcomes = 256
	// outcomeTimeout bounds how long an outcome is tried to be written. The referee
	// writes its own after that.
	outcomeTimeout = 15 * time.Second
)

// outcome is what a holder says of a command.
type outcome struct {
	command shelly.SwitchCommand
	result  shelly.SwitchResult
	until   time.Time
}

// outcomes writes outcomes apart from the holders, which must not wait. Each system
// has a queue and writers of its own, and no bound is shared: one whose
// outcomes cannot be written takes nothing from the others.
type outcomes struct {
	write  func(ctx context.Context, c shelly.SwitchCommand, r shelly.SwitchResult) error
	logger *slog.Logger

	mu      sync.Mutex
	systems map[domain.SystemID]*outcomeQueue // those with writers
	closing context.Context
	close   context.CancelFunc
	working sync.WaitGroup
}

// outcomeQueue is what waits for the writers of one system.
type outcomeQueue struct {
	waiting []outcome
	writers int
	dropped int
}

func newOutcomes(logger *slog.Logger, write func(context.Context, shelly.SwitchCommand, shelly.SwitchResult) error) *outcomes {
	o := &outcomes{write: write, logger: logger, systems: map[domain.SystemID]*outcomeQueue{}}
	o.closing, o.close = context.WithCancel(context.Background())
	return o
}

// put takes an outcome to be written. It does not wait.
func (o *outcomes) put(c shelly.SwitchCommand, r shelly.SwitchResult) {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := o.systems[c.System]
	if q == nil {
		q = &outcomeQueue{}
		o.systems[c.System] = q
	}
	one := outcome{c, r, time.Now().Add(outcomeTimeout)}
	switch {
	case q.writers < outcomeWriters:
		q.writers++
		o.working.Go(func() { o.work(q, one) })
	case len(q.waiting) < maxOutcomes:
		q.waiting = append(q.waiting, one)
	default:
		if q.dropped++; q.dropped == 1 {
			o.logger.Warn("switching: too many outcomes wait to be written; the referee ends the rest", "system", c.System)
		}
	}
}

// work writes one outcome after the other until none waits.
func (o *outcomes) work(q *outcomeQueue, one outcome) {
	for more := true; more; one, more = o.next(q, one.command.System) {
		_ = isolate.Run(o.logger, "switching", func() error { o.insist(one); return nil })
	}
}

// next takes what a writer does next; there is none when it ends.
func (o *outcomes) next(q *outcomeQueue, system domain.SystemID) (outcome, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(q.waiting) > 0 {
		one := q.waiting[0]
		q.waiting = q.waiting[1:]
		return one, true
	}
	if q.writers--; q.writers == 0 {
		delete(o.systems, system)
	}
	return outcome{}, false
}

// insist tries to write an outcome for as long as it may.
func (o *outcomes) insist(one outcome) {
	ctx, cancel := context.WithDeadline(o.closing, one.until)
	defer cancel()
	if err := o.write(ctx, one.command, one.result); err != nil {
		o.logger.Warn("switching: an outcome could not be written", "system", one.command.System, "command", one.command.CommandID,
			"error", err)
	}
}

// end gives up on what is being written, and waits.
func (o *outcomes) end() {
	o.close()
	o.working.Wait()
}
