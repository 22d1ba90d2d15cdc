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
	// outcomeWriters is how many outcomes of a system are appended at a time.
	outcomeWriters = 8
	// maxOutcomes is how many of a system wait. More arrive only while the log does not
	// take them; the partition's owner ends those commands.
	maxOutcomes = 256
	// outcomeTimeout bounds the attempts to append one outcome. After that the
	// partition's owner appends its own.
	outcomeTimeout = 15 * time.Second
)

// outcome is the result that a holder reports of a command.
type outcome struct {
	command shelly.SwitchCommand
	result  shelly.SwitchResult
	until   time.Time
}

// outcomes appends outcomes for the holders, which must not wait. Each system has its
// own queue and writers, and the systems share no bound: a system whose outcomes
// cannot be appended takes nothing from the others.
type outcomes struct {
	append func(ctx context.Context, c shelly.SwitchCommand, r shelly.SwitchResult) error
	logger *slog.Logger

	mu      sync.Mutex
	systems map[domain.SystemID]*outcomeQueue // those with writers
	ctx     context.Context                   // ends with close
	cancel  context.CancelFunc
	writing sync.WaitGroup
}

// outcomeQueue has the outcomes of one system that wait for a writer.
type outcomeQueue struct {
	waiting []outcome
	writers int
	dropped int
}

func newOutcomes(logger *slog.Logger, appendOne func(context.Context, shelly.SwitchCommand, shelly.SwitchResult) error) *outcomes {
	o := &outcomes{append: appendOne, logger: logger, systems: map[domain.SystemID]*outcomeQueue{}}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o
}

// add has an outcome appended. It does not block.
func (o *outcomes) add(c shelly.SwitchCommand, r shelly.SwitchResult) {
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
		o.writing.Go(func() { o.write(q, one) })
	case len(q.waiting) < maxOutcomes:
		q.waiting = append(q.waiting, one)
	default:
		if q.dropped++; q.dropped == 1 {
			o.logger.Warn("switching: too many outcomes wait for the log; the partition's owner ends the other commands", "system", c.System)
		}
	}
}

// write is a writer: it appends one outcome after the other until none waits.
func (o *outcomes) write(q *outcomeQueue, one outcome) {
	for more := true; more; one, more = o.next(q, one.command.System) {
		_ = isolate.Run(o.logger, "switching", func() error { o.appendOne(one); return nil })
	}
}

// next returns the writer's next outcome, or false when the writer is to end.
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

func (o *outcomes) appendOne(one outcome) {
	ctx, cancel := context.WithDeadline(o.ctx, one.until)
	defer cancel()
	if err := o.append(ctx, one.command, one.result); err != nil {
		o.logger.Warn("switching: cannot append an outcome", "system", one.command.System, "command", one.command.CommandID, "error", err)
	}
}

// close cancels the appends that are under way, and waits for the writers.
func (o *outcomes) close() {
	o.cancel()
	o.writing.Wait()
}
