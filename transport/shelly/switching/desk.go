// Package switching passes relay commands to the process that holds the device, and
// ensures that each command ends with one relay-switch-completed, whichever process
// dies on the way.
//
// Every process reads each relay-switch-requested and asks its holders. A process
// that holds the device takes the command before it sends it. The owner of the
// system's partition is the referee: when a command may not be sent any more, the
// referee closes it and ends it as failed if no process took it. It ends a taken
// command without an answer in time as unknown. It does not matter which process holds
// the device by then, because a device that reconnects did not receive the command.
// Holder and referee write under one idempotency key, so that the first outcome is the
// only one.
//
// For a command of another deployment that came over a bridge, the holder of the
// device here passes the command on, and the outcome goes back over the bridge. The
// referee here only reports that a device of this deployment is not connected; the
// referee of the other deployment reports a missing answer. If the link is cut in
// between, that referee reports unknown, and the true outcome follows when the link
// is back.
package switching

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

// Times of a command, counted from when it was appended.
const (
	// expiry is how long a command may be sent to the device. A process that was
	// frozen must not switch a laser on when it wakes. It is also when the referee
	// gives up on a device that nobody holds: sooner, a holder that is not known yet
	// could still switch it.
	expiry = 3 * time.Second
	// foreignExpiry is the same for a command that was given in another deployment,
	// by that one's clock: it came over a bridge, and clocks differ. It must be less
	// than DefaultLimit, when that one says that nobody knows.
	foreignExpiry = 10 * time.Second
	// askTimeout bounds a question to Redis or Postgres about one command.
	askTimeout = 2 * time.Second
	// DefaultLimit is when the referee ends a command that nobody answered: later
	// than any holder does.
	DefaultLimit = 20 * time.Second
	// lookAround is the pace of the referee.
	lookAround = 250 * time.Millisecond
)

const (
	// endingAtOnce is for how many systems commands are ended at a time. It is more
	// than can be expected to begin to hang together; the pool of Redis bounds what
	// is asked at once.
	endingAtOnce = 256
	// endTimeout bounds one turn of a system.
	endTimeout = 10 * time.Second
)

// eventActor is who the outcomes are by.
const eventActor = "plugcast"

// Parts are what a [Desk] works with; all are required.
type Parts struct {
	Log     domain.Appender
	Holders []shelly.Holder
	Claims  Claims
	// Elsewhere tells whether the device is not this deployment's, as far as is
	// known, so that its commands are carried out by another.
	Elsewhere func(ctx context.Context, d shelly.DeviceRef) (bool, error)
	// Recent returns the relay commands of a partition and their outcomes that
	// were appended since a time, in order, or more events than those.
	Recent func(ctx context.Context, partition int, since time.Time) ([]domain.Event, error)
	// Partition is where a system's events are.
	Partition func(domain.SystemID) int
	Logger    *slog.Logger
	// Limit is [DefaultLimit] when 0.
	Limit time.Duration
}

// Claims decides between processes whether a command may be sent.
type Claims interface {
	// Take says that this process is about to send the command. ok is false when the
	// command is closed. Several processes may take it. When Take fails, the command
	// must not be sent.
	Take(ctx context.Context, system domain.SystemID, commandID string) (ok bool, err error)
	// Close says that nobody is to send the command any more. ok is false when a
	// process took it before. Closing twice is fine.
	Close(ctx context.Context, system domain.SystemID, commandID string) (ok bool, err error)
}

// Desk is the switching of one process. It is safe for concurrent use.
type Desk struct {
	parts Parts

	mu   sync.Mutex
	open map[int]map[string]*command // of the partitions that are owned here, by command id

	outcomes *outcomes                      // what holders say
	ending   *isolate.Keys[domain.SystemID] // what the referee ends, per system
}

// command is one that has not ended yet, as the referee sees it.
type command struct {
	shelly.SwitchCommand
	requested time.Time
	taken     bool // as far as is known: its holder answers, or the limit ends it
	foreign   bool // given in another deployment, whose referee it has
}

// New makes a Desk. [Desk.Close] ends it.
func New(p Parts) *Desk {
	if p.Limit == 0 {
		p.Limit = DefaultLimit
	}
	d := &Desk{parts: p, open: map[int]map[string]*command{}}
	d.ending = isolate.NewKeys[domain.SystemID](p.Logger, "switching", endingAtOnce, endTimeout)
	d.outcomes = newOutcomes(p.Logger, d.insist)
	return d
}

// Holders are those that it asks.
func (d *Desk) Holders() []shelly.Holder { return d.parts.Holders }

// Close gives up on outcomes that are being written and waits. Reactions and
// duties must have ended.
func (d *Desk) Close() {
	d.outcomes.end()
	d.ending.Wait()
}

// Requested is the reaction on relay-switch-requested. It waits for Redis when a
// holder of this process has the device, and never for a device.
func (d *Desk) Requested(ctx context.Context, e domain.Event) error {
	c, err := commandOf(&e)
	if c == nil {
		return err
	}
	c.taken = time.Now().Before(c.Expires) && d.send(ctx, c)
	d.mu.Lock()
	defer d.mu.Unlock()
	if open := d.open[d.parts.Partition(c.System)]; open != nil {
		if known := open[c.CommandID]; known == nil || c.taken {
			open[c.CommandID] = c
		}
	}
	return nil
}

// send passes a command to the holder of its device, if one is in this process and
// nobody has closed the command. It reports whether it took the command.
func (d *Desk) send(ctx context.Context, c *command) (taken bool) {
	at := slices.IndexFunc(d.parts.Holders, func(h shelly.Holder) bool { return h.Holds(c.DeviceRef) })
	if at < 0 {
		return false
	}
	report := func(r shelly.SwitchResult) { d.outcomes.put(c.SwitchCommand, r) }
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	switch ok, err := d.parts.Claims.Take(ctx, c.System, c.CommandID); {
	case err != nil:
		d.parts.Logger.Warn("switching: a command cannot be taken", "command", c.CommandID, "error", err)
		report(shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: "it was not sent: nobody knows whether it is still open"})
	case !ok:
		return false
	case !d.parts.Holders[at].Switch(c.SwitchCommand, report):
		report(shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: "the device went away before it could be told"})
	}
	return true
}

// commandOf reads a request; nil when this build does not know its version.
func commandOf(e *domain.Event) (*command, error) {
	data, err := e.Decode()
	if err != nil {
		return nil, err
	}
	r, ok := data.(domain.RelaySwitchRequested)
	if !ok {
		return nil, nil
	}
	// The position has Redis' clock, the same for every process.
	requested := e.Position.Time()
	lasts := expiry
	if e.Origin != "" {
		// The position says when it came here, which may be long after: a link that
		// was cut brings old commands.
		lasts = foreignExpiry
		if e.Time.Before(requested) {
			requested = e.Time
		}
	}
	return &command{
		SwitchCommand: shelly.SwitchCommand{
			DeviceRef: shelly.DeviceRef{System: e.SystemID, Device: r.DeviceID},
			CommandID: r.CommandID, CorrelationID: e.CorrelationID, On: r.On,
			ToggleAfter: time.Duration(r.ToggleAfterS * float64(time.Second)), Expires: requested.Add(lasts),
		},
		requested: requested, foreign: e.Origin != "",
	}, nil
}

// Completed is the reaction on relay-switch-completed.
func (d *Desk) Completed(_ context.Context, e domain.Event) error {
	data, err := e.Decode()
	if c, ok := data.(domain.RelaySwitchCompleted); ok {
		d.mu.Lock()
		delete(d.open[d.parts.Partition(e.SystemID)], c.CommandID)
		d.mu.Unlock()
	}
	return err
}

// Referee is a duty of the partition's owner: until ctx ends it ends the commands
// that nobody else does. It begins with those that its predecessor left.
func (d *Desk) Referee(ctx context.Context, partition int) {
	d.mu.Lock()
	d.open[partition] = map[string]*command{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.open, partition)
		d.mu.Unlock()
	}()
	ticker := time.NewTicker(lookAround)
	defer ticker.Stop()
	inherited := false
	for {
		if !inherited {
			err := d.inherit(ctx, partition)
			if err != nil && ctx.Err() == nil {
				d.parts.Logger.Warn("switching: cannot look for open commands; trying again", "partition", partition, "error", err)
			}
			inherited = err == nil
		}
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			d.judge(ctx, partition, now)
		}
	}
}

// inherit finds the commands that were open before this process owned the
// partition. What came since, the reactions bring.
func (d *Desk) inherit(ctx context.Context, partition int) error {
	events, err := d.parts.Recent(ctx, partition, time.Now().Add(-3*d.parts.Limit))
	if err != nil {
		return err
	}
	found := map[string]*command{}
	for i := range events {
		switch e := &events[i]; e.Type {
		case domain.TypeRelaySwitchRequested:
			if c, _ := commandOf(e); c != nil {
				found[c.CommandID] = c
			}
		case domain.TypeRelaySwitchCompleted:
			if data, _ := e.Decode(); data != nil {
				if c, ok := data.(domain.RelaySwitchCompleted); ok {
					delete(found, c.CommandID)
				}
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, c := range found {
		if d.open[partition][id] == nil {
			d.open[partition][id] = c
		}
	}
	return nil
}

// judge ends what can be ended.
func (d *Desk) judge(ctx context.Context, partition int, now time.Time) {
	d.mu.Lock()
	var due []*command
	for _, c := range d.open[partition] {
		if !now.Before(c.Expires) && !c.taken || now.Sub(c.requested) >= d.parts.Limit {
			due = append(due, c)
		}
	}
	d.mu.Unlock()
	bySystem := map[domain.SystemID][]*command{}
	for _, c := range due {
		bySystem[c.System] = append(bySystem[c.System], c)
	}
	for system, commands := range bySystem {
		d.ending.Go(ctx, system, func(ctx context.Context) error { return d.endAll(ctx, partition, commands, now) })
	}
}

// endAll ends the commands of one system, as far as that can be done: first those
// that need nobody's answer for it.
func (d *Desk) endAll(ctx context.Context, partition int, commands []*command, now time.Time) error {
	slices.SortFunc(commands, func(a, b *command) int { return a.requested.Compare(b.requested) })
	for _, c := range commands {
		ended, err := d.end(ctx, c, now)
		if err != nil {
			return fmt.Errorf("end command %s: %w", c.CommandID, err)
		}
		if !ended {
			continue // its holder answers, or the limit ends it
		}
		d.mu.Lock()
		delete(d.open[partition], c.CommandID)
		d.mu.Unlock()
	}
	return nil
}

// end says how a command ended that is due, if that is for this deployment to say.
func (d *Desk) end(ctx context.Context, c *command, now time.Time) (ended bool, err error) {
	if now.Sub(c.requested) >= d.parts.Limit {
		if c.foreign {
			return true, nil // the referee where it was given says so
		}
		return true, d.write(ctx, c.SwitchCommand, shelly.SwitchResult{
			Outcome: domain.OutcomeUnknown, Error: "nobody answered in time: it may have been done",
		})
	}
	closed, elsewhere := d.closeCommand(ctx, c)
	switch {
	case elsewhere:
		return c.foreign, nil
	case !closed:
		return false, nil
	}
	return true, d.write(ctx, c.SwitchCommand, shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: "the device was not connected"})
}

// closeCommand closes a command that may not be sent any more. It is not closed when
// somebody took it or that cannot be told now, and not for this deployment to close
// when the device is elsewhere.
func (d *Desk) closeCommand(ctx context.Context, c *command) (closed, elsewhere bool) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	closed, err := d.parts.Claims.Close(ctx, c.System, c.CommandID)
	switch {
	case err != nil:
		return false, false
	case !closed:
		d.mu.Lock()
		c.taken = true
		d.mu.Unlock()
		return false, false
	}
	elsewhere, err = d.parts.Elsewhere(ctx, c.DeviceRef)
	return err == nil, err == nil && elsewhere
}

// maxError bounds what a device says of why it refused, in bytes.
const maxError = 512

// write makes one attempt to append the outcome of a command, unless it has one.
func (d *Desk) write(ctx context.Context, c shelly.SwitchCommand, r shelly.SwitchResult) error {
	events, once, err := outcomeOf(c, r)
	if err == nil {
		_, err = d.parts.Log.Append(ctx, events, once)
	}
	return err
}

// insist is write until it is done.
func (d *Desk) insist(ctx context.Context, c shelly.SwitchCommand, r shelly.SwitchResult) error {
	events, once, err := outcomeOf(c, r)
	if err == nil {
		_, err = domain.AppendUntilDone(ctx, d.parts.Log, events, once, nil)
	}
	return err
}

// outcomeOf makes the event of an outcome, and the key that the log has it under.
func outcomeOf(c shelly.SwitchCommand, r shelly.SwitchResult) ([]domain.Event, domain.AppendOptions, error) {
	e, err := domain.NewEvent(c.System, domain.RelaySwitchCompleted{
		CommandID: c.CommandID, DeviceID: c.Device, Outcome: r.Outcome, Error: domain.CutText(r.Error, maxError),
	}, domain.Cause{Actor: eventActor, CorrelationID: c.CorrelationID, CausationID: c.CommandID})
	return []domain.Event{e}, domain.AppendOptions{
		Idempotency: &domain.Idempotency{Scope: eventActor, Key: "relay/" + c.CommandID},
	}, err
}
