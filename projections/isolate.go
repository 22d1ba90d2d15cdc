package projections

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// An event never stops a partition. If a batch fails because of the content of an event, the
// projector finds the event, replaces it with one of type [domain.TypeUndecodable], and
// continues. It writes the rest of the batch unchanged.
//
// Events that the fold, or its rows, cannot represent are found in memory, however many there
// are. Events that only Postgres refuses are found by halving the batch.

// maxUnknown is how often a batch may fail for an unforeseen reason before its events are
// suspected. With the worker's pauses that is some seconds.
const maxUnknown = 5

// foldName is the name under which panics of a projection are counted.
const foldName = "projection"

// writeIsolating writes a batch. If that fails because of the content of events, it finds and
// replaces them.
func (p *Projector) writeIsolating(ctx context.Context, events []domain.Event) error {
	err := p.attempt(ctx, events)
	if err == nil {
		p.unknown = 0
		return nil
	}
	if !p.suspects(err) {
		return err
	}
	p.logger.Warn("cannot write a batch; searching for the faulty entry", "entries", len(events),
		"first", events[0].Position.String(), "error", err)
	events = slices.Clone(events) // other consumers have the same events
	if err = p.screen(ctx, events); err != nil && causeOf(err) != causeContent {
		return err // screen only reads, so no event is at fault
	}
	if err == nil {
		err = p.attempt(ctx, events)
	}
	if err != nil && causeOf(err) != causeEnvironment {
		err = p.isolate(ctx, events, err)
	}
	if err == nil {
		p.unknown = 0
	}
	return err
}

// screen replaces the events that the fold or its rows cannot represent. It writes nothing.
func (p *Projector) screen(ctx context.Context, events []domain.Event) error {
	p.reset()
	defer p.reset()
	if err := p.load(ctx, events); err != nil {
		return fmt.Errorf("load systems: %w", err)
	}
	for i := range events {
		e := &events[i]
		if e.SystemID == "" {
			continue
		}
		err := isolate.Run(p.logger, foldName, func() error { return p.states.get(e.SystemID).tryFold(*e) })
		if err == nil {
			continue
		}
		if causeOf(err) == causeEnvironment {
			return err
		}
		*e = replacement(e, err, false)
		// Discard the changes that the event made to its system's state.
		if err := p.refold(ctx, events[:i+1], e.SystemID); err != nil {
			return err
		}
	}
	return nil
}

// tryFold folds an event and makes the rows that it touches, and discards the rows.
func (l *stateCache) tryFold(e domain.Event) error {
	if _, err := l.number(&e); err != nil {
		return err
	}
	var c changes
	return c.gather(l)
}

// refold loads a system and folds its events.
func (p *Projector) refold(ctx context.Context, events []domain.Event, system domain.SystemID) error {
	p.states.drop(system)
	if err := p.load(ctx, events); err != nil {
		return fmt.Errorf("load a system: %w", err)
	}
	for i := range events {
		if events[i].SystemID != system {
			continue
		}
		if err := p.states.get(system).tryFold(events[i]); err != nil {
			return err
		}
	}
	return nil
}

// suspects reports whether a batch failed because of its content, as far as that is known by
// now.
func (p *Projector) suspects(err error) bool {
	switch causeOf(err) {
	case causeContent:
		return true
	case causeUnknown:
		p.unknown++
		return p.unknown >= maxUnknown
	}
	return false
}

// isolate writes events that failed together with cause. It fails if no event is at fault: if
// the failure is temporary, or stays when the event is replaced.
func (p *Projector) isolate(ctx context.Context, events []domain.Event, cause error) error {
	if len(events) == 1 {
		return p.replace(ctx, events[0], cause)
	}
	half := len(events) / 2
	for _, part := range [][]domain.Event{events[:half], events[half:]} {
		err := p.attempt(ctx, part)
		if err != nil && causeOf(err) != causeEnvironment {
			err = p.isolate(ctx, part, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replace writes another event in place of one that cannot be written. If the replacement can
// be written, the event was at fault.
func (p *Projector) replace(ctx context.Context, e domain.Event, cause error) error {
	// The cached state of its system may have been the reason; it is gone now.
	err := p.attempt(ctx, []domain.Event{e})
	for _, bare := range []bool{false, true} {
		if err == nil || causeOf(err) == causeEnvironment {
			return err
		}
		err = p.attempt(ctx, []domain.Event{replacement(&e, cause, bare)})
	}
	if err != nil {
		return fmt.Errorf("an entry at %s can neither be written nor replaced: %w", e.Position, err)
	}
	return nil
}

// replacement returns what history stores for an event that cannot be written: its envelope,
// unless bare, and its content as text.
func replacement(e *domain.Event, cause error, bare bool) domain.Event {
	fields := map[string]string{"type": string(e.Type), "version": strconv.Itoa(e.Version), "data": string(e.Data)}
	if bare {
		fields["id"], fields["actor"], fields["time"] = e.ID, e.Actor, domain.FormatTime(e.Time)
		fields["correlationId"], fields["causationId"], fields["origin"] = e.CorrelationID, e.CausationID, e.Origin
	}
	reason := "it cannot be projected: " + reasonOf(cause)
	if bare {
		return domain.NewUndecodable(e.SystemID, e.Position, reason, fields)
	}
	return e.AsUndecodable(reason, fields)
}

// attempt writes events in one transaction, or none of them. After a failure the outcome of the
// write is unknown, so the cached states are dropped.
func (p *Projector) attempt(ctx context.Context, events []domain.Event) error {
	err := isolate.Run(p.logger, foldName, func() error { return p.write(ctx, events) })
	if err != nil {
		p.reset()
		p.rows = copyRows{} // pgx' CopyFrom does not wait for its reader when a connection breaks
	}
	return err
}

// reset drops everything that is cached of the database.
func (p *Projector) reset() {
	p.states = newLRU(maxSystems)
	p.store.months.Clear()
}
