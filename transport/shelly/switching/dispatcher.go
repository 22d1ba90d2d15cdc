// Package switching passes relay commands to the process that holds the device, and
// ensures that each command ends with one relay-switch-completed, even if processes
// die on the way.
//
// Every process reads each relay-switch-requested and asks its holders. A process that
// holds the device takes the command before it sends it. The owner of the system's
// partition runs the timeouts. When a command may no longer be sent, the owner closes
// it, and ends it as failed if no process took it. It ends a taken command without an
// answer in time as unknown. It does not matter which process holds the device by then,
// because a device that reconnects did not receive the command. Holder and owner write
// under one idempotency key, so only the first outcome is appended.
//
// A command of another deployment arrives over a bridge. The holder of the device here
// executes it, and the outcome goes back over the bridge. The owner here only reports
// that a device of this deployment is not connected; the owner in the other deployment
// reports a missing answer. If the link is cut in between, that owner reports unknown,
// and the true outcome follows when the link is back.
package switching

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

// Times of a command, counted from when it was appended.
const (
	// expiry is how long a command may be sent to the device: a process that was frozen
	// must not switch a laser on when it wakes. The owner fails a command that no
	// process took at the same time, and not sooner, because a holder that has not
	// reported itself yet could still switch.
	expiry = 3 * time.Second
	// foreignExpiry is expiry for a command of another deployment, by that one's clock:
	// clocks differ. It must be less than DefaultLimit, when that one reports unknown.
	foreignExpiry = 10 * time.Second
	// lookupTimeout bounds a request to Redis or Postgres about one command.
	lookupTimeout = 2 * time.Second
	// DefaultLimit is when the owner ends a command without an answer. All holders give
	// up sooner.
	DefaultLimit = 20 * time.Second
	// checkEvery is how often the owner looks for commands to end.
	checkEvery = 250 * time.Millisecond
)

const (
	// maxEnding is for how many systems the owner ends commands at a time. It is more
	// than can be expected to begin to hang together; the pool of Redis bounds the
	// concurrent requests.
	maxEnding = 256
	// endTimeout bounds the ending of one system's commands.
	endTimeout = 10 * time.Second
)

// eventActor is the actor of the outcomes.
const eventActor = "plugcast"

// Parts are the dependencies of a [Dispatcher]. All but Limit are required.
type Parts struct {
	Log     domain.Appender
	Holders []shelly.Holder
	Claims  Claims
	// Elsewhere reports whether another deployment, as far as this one knows, holds the
	// device and executes its commands.
	Elsewhere func(ctx context.Context, d domain.DeviceRef) (bool, error)
	// Recent returns a partition's relay commands and their outcomes since a time, in
	// order. It may return more events.
	Recent func(ctx context.Context, partition int, since time.Time) ([]domain.Event, error)
	// Partition returns the partition of a system's events.
	Partition func(domain.SystemID) int
	Logger    *slog.Logger
	// Limit is [DefaultLimit] when 0.
	Limit time.Duration
}

// Claims decides between processes whether a command may be sent.
type Claims interface {
	// Take announces that this process is about to send the command. ok is false when
	// the command is closed. Several processes may take it. When Take fails, the caller
	// must not send the command.
	Take(ctx context.Context, system domain.SystemID, commandID string) (ok bool, err error)
	// Close forbids all processes to send the command from now on. ok is false when a
	// process took it before. Closing twice is fine.
	Close(ctx context.Context, system domain.SystemID, commandID string) (ok bool, err error)
}

// Dispatcher passes the commands of one process on. It is safe for concurrent use.
type Dispatcher struct {
	parts Parts

	mu   sync.Mutex
	open map[int]map[string]*command // in the partitions that this process owns, by command id

	outcomes *outcomes                           // from holders
	ending   *isolate.KeyedPool[domain.SystemID] // by the owner
}

// command is one that has not ended yet, as the owner sees it.
type command struct {
	shelly.SwitchCommand
	requested time.Time
	taken     bool // as far as is known: its holder answers, or the limit ends it
	foreign   bool // of another deployment, whose owner ends it
}

// New returns a Dispatcher. It starts nothing.
func New(p Parts) *Dispatcher {
	if p.Limit == 0 {
		p.Limit = DefaultLimit
	}
	d := &Dispatcher{parts: p, open: map[int]map[string]*command{}}
	d.ending = isolate.NewKeyedPool[domain.SystemID](p.Logger, "switching", maxEnding, endTimeout)
	d.outcomes = newOutcomes(p.Logger, d.appendUntilDone)
	return d
}

// Close cancels the appends of outcomes that are under way, and waits for them. The
// reactions and [Dispatcher.RunTimeouts] must have returned before.
func (d *Dispatcher) Close() {
	d.outcomes.close()
	d.ending.Wait()
}

// Requested is the reaction on relay-switch-requested. It waits for Redis when a holder
// of this process has the device, and never for a device.
func (d *Dispatcher) Requested(ctx context.Context, e domain.Event) error {
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

// send passes a command to the holder of its device, if this process has one and the
// command is not closed. It reports whether it took the command.
func (d *Dispatcher) send(ctx context.Context, c *command) (taken bool) {
	at := slices.IndexFunc(d.parts.Holders, func(h shelly.Holder) bool { return h.Holds(c.DeviceRef) })
	if at < 0 {
		return false
	}
	report := func(r shelly.SwitchResult) { d.outcomes.add(c.SwitchCommand, r) }
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	switch ok, err := d.parts.Claims.Take(ctx, c.System, c.CommandID); {
	case err != nil:
		d.parts.Logger.Warn("switching: cannot take a command", "command", c.CommandID, "error", err)
		report(shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: "it was not sent: nobody knows whether it is still open"})
	case !ok:
		return false
	case !d.parts.Holders[at].Switch(c.SwitchCommand, report):
		report(shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: "the device went away before it could be told"})
	}
	return true
}

// commandOf reads a request. It returns nil for a version that this build does not know.
func commandOf(e *domain.Event) (*command, error) {
	data, err := e.Decode()
	if err != nil {
		return nil, err
	}
	r, ok := data.(domain.RelaySwitchRequested)
	if !ok {
		return nil, nil
	}
	// The position has the clock of Redis, which is the same for every process.
	requested := e.Position.Time()
	lasts := expiry
	if e.Origin != "" {
		// The position has the time of arrival. That may be much later: a link that was
		// cut brings old commands.
		lasts = foreignExpiry
		if e.Time.Before(requested) {
			requested = e.Time
		}
	}
	return &command{
		SwitchCommand: shelly.SwitchCommand{
			DeviceRef: domain.DeviceRef{System: e.SystemID, Device: r.DeviceID},
			CommandID: r.CommandID, CorrelationID: e.CorrelationID, On: r.On,
			ToggleAfter: time.Duration(r.ToggleAfterS * float64(time.Second)), Expires: requested.Add(lasts),
		},
		requested: requested, foreign: e.Origin != "",
	}, nil
}

// Completed is the reaction on relay-switch-completed.
func (d *Dispatcher) Completed(_ context.Context, e domain.Event) error {
	data, err := e.Decode()
	if c, ok := data.(domain.RelaySwitchCompleted); ok {
		d.mu.Lock()
		delete(d.open[d.parts.Partition(e.SystemID)], c.CommandID)
		d.mu.Unlock()
	}
	return err
}

// RunTimeouts is a job of the partition's owner: until ctx ends it ends commands that
// nobody else ends. It begins with those that the former owner left.
func (d *Dispatcher) RunTimeouts(ctx context.Context, partition int) {
	d.mu.Lock()
	d.open[partition] = map[string]*command{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.open, partition)
		d.mu.Unlock()
	}()
	loaded := false
	load := func() {
		if loaded {
			return
		}
		err := d.loadOpen(ctx, partition)
		if err != nil && ctx.Err() == nil {
			d.parts.Logger.Warn("switching: cannot look for open commands; trying again", "partition", partition, "error", err)
		}
		loaded = err == nil
	}
	load()
	backoff.Every(ctx, checkEvery, func(now time.Time) {
		d.endDue(ctx, partition, now)
		load()
	})
}

// loadOpen finds the commands that were open before this process owned the partition.
// The reactions bring the later ones.
func (d *Dispatcher) loadOpen(ctx context.Context, partition int) error {
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

// endDue starts ending the commands that are due, each system by itself.
func (d *Dispatcher) endDue(ctx context.Context, partition int, now time.Time) {
	bySystem := map[domain.SystemID][]*command{}
	d.mu.Lock()
	for _, c := range d.open[partition] {
		if !now.Before(c.Expires) && !c.taken || now.Sub(c.requested) >= d.parts.Limit {
			bySystem[c.System] = append(bySystem[c.System], c)
		}
	}
	d.mu.Unlock()
	for system, commands := range bySystem {
		d.ending.Go(ctx, system, func(ctx context.Context) error { return d.endCommands(ctx, partition, commands, now) })
	}
}

// endCommands ends due commands of one system, the oldest first: those have reached
// their limit and depend on no other part. It stops at the first error.
func (d *Dispatcher) endCommands(ctx context.Context, partition int, commands []*command, now time.Time) error {
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

// end appends the outcome of a due command if this deployment has to.
func (d *Dispatcher) end(ctx context.Context, c *command, now time.Time) (ended bool, err error) {
	if now.Sub(c.requested) >= d.parts.Limit {
		if c.foreign {
			return true, nil // the owner in its own deployment reports the outcome
		}
		return true, d.append(ctx, c.SwitchCommand, shelly.SwitchResult{
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
	return true, d.append(ctx, c.SwitchCommand, shelly.SwitchResult{Outcome: domain.OutcomeFailed, Error: "the device was not connected"})
}

// closeCommand closes a command that may no longer be sent. closed is false when a
// process took it, or when a look-up fails. elsewhere is true when another deployment
// holds the device.
func (d *Dispatcher) closeCommand(ctx context.Context, c *command) (closed, elsewhere bool) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
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

// maxError bounds the device's reason for a refusal, in bytes.
const maxError = 512

// append makes one attempt to append the outcome of a command, unless it has one.
func (d *Dispatcher) append(ctx context.Context, c shelly.SwitchCommand, r shelly.SwitchResult) error {
	events, once, err := outcomeOf(c, r)
	if err == nil {
		_, err = d.parts.Log.Append(ctx, events, once)
	}
	return err
}

// appendUntilDone repeats append until the log has the outcome or ctx ends.
func (d *Dispatcher) appendUntilDone(ctx context.Context, c shelly.SwitchCommand, r shelly.SwitchResult) error {
	events, once, err := outcomeOf(c, r)
	if err == nil {
		_, err = domain.AppendUntilDone(ctx, d.parts.Log, events, once, nil)
	}
	return err
}

// outcomeOf returns the event of an outcome, and the key that makes it the only one.
func outcomeOf(c shelly.SwitchCommand, r shelly.SwitchResult) ([]domain.Event, domain.AppendOptions, error) {
	e, err := domain.NewEvent(c.System, domain.RelaySwitchCompleted{
		CommandID: c.CommandID, DeviceID: c.Device, Outcome: r.Outcome, Error: domain.TruncateText(r.Error, maxError),
	}, domain.Cause{Actor: eventActor, CorrelationID: c.CorrelationID, CausationID: c.CommandID})
	return []domain.Event{e}, domain.AppendOptions{
		Idempotency: &domain.Idempotency{Scope: eventActor, Key: "relay/" + c.CommandID},
	}, err
}
