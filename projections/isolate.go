package projections

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// An event never stops a partition. When a batch fails because of the content of an
// event, the projector finds the event, replaces it with one of
// [domain.TypeUndecodable], and continues. It writes the rest of the batch unchanged.
//
// It finds events that the fold, or the rows of the fold, cannot represent in memory,
// however many there are. It finds events that only Postgres refuses by halving the
// batch.

// maxUnknown is how often a batch may fail for a reason that nobody foresaw before
// its events are suspected. With the worker's pauses that is some seconds.
const maxUnknown = 5

// whereFold is the name under which panics of a projection are counted.
const whereFold = "projection"

// settle writes a batch, and finds the events that cannot be written.
func (p *Projector) settle(ctx context.Context, events []domain.Event) error {
	err := p.attempt(ctx, events)
	if err == nil {
		p.unknown = 0
		return nil
	}
	if !p.suspects(err) {
		return err
	}
	p.logger.Warn("a batch cannot be written; looking for the faulty entry", "entries", len(events),
		"first", events[0].Position.String(), "error", err)
	events = slices.Clone(events) // others read them too
	if err = p.screen(ctx, events); err != nil && blameOf(err) != ofContent {
		return err // it only reads: no entry is at fault
	}
	if err == nil {
		err = p.attempt(ctx, events)
	}
	if err != nil && blameOf(err) != ofCircumstance {
		err = p.isolate(ctx, events, err)
	}
	if err == nil {
		p.unknown = 0
	}
	return err
}

// screen replaces the events that the fold or its rows cannot take. It writes nothing.
func (p *Projector) screen(ctx context.Context, events []domain.Event) error {
	p.forget()
	defer p.forget()
	if err := p.recall(ctx, events); err != nil {
		return fmt.Errorf("load systems: %w", err)
	}
	for i := range events {
		e := &events[i]
		if e.SystemID == "" {
			continue
		}
		err := isolate.Run(p.logger, whereFold, func() error { return p.memory.get(e.SystemID).try(*e) })
		if err == nil {
			continue
		}
		if blameOf(err) == ofCircumstance {
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

// try folds an event and makes the rows that it touches, and forgets them.
func (l *ledger) try(e domain.Event) error {
	if _, err := l.count(&e); err != nil {
		return err
	}
	var c changes
	return c.gather(l)
}

// refold loads a system and folds what events have of it.
func (p *Projector) refold(ctx context.Context, events []domain.Event, system domain.SystemID) error {
	p.memory.drop(system)
	if err := p.recall(ctx, events); err != nil {
		return fmt.Errorf("load a system: %w", err)
	}
	for i := range events {
		if events[i].SystemID != system {
			continue
		}
		if err := p.memory.get(system).try(events[i]); err != nil {
			return err
		}
	}
	return nil
}

// suspects reports whether a batch failed because of what is in it, as far as that
// can be known by now.
func (p *Projector) suspects(err error) bool {
	switch blameOf(err) {
	case ofContent:
		return true
	case ofUnknown:
		p.unknown++
		return p.unknown >= maxUnknown
	}
	return false
}

// isolate writes events that failed together with cause. It fails when the fault is
// not in an event: when it is transient, or stays when the event is replaced.
func (p *Projector) isolate(ctx context.Context, events []domain.Event, cause error) error {
	if len(events) == 1 {
		return p.replace(ctx, events[0], cause)
	}
	half := len(events) / 2
	for _, part := range [][]domain.Event{events[:half], events[half:]} {
		err := p.attempt(ctx, part)
		if err != nil && blameOf(err) != ofCircumstance {
			err = p.isolate(ctx, part, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replace writes another event in the place of one that cannot be written. That the
// replacement is written is the proof that the event was at fault.
func (p *Projector) replace(ctx context.Context, e domain.Event, cause error) error {
	// It may have failed for what was remembered of its system: that is forgotten now.
	err := p.attempt(ctx, []domain.Event{e})
	for _, bare := range []bool{false, true} {
		if err == nil || blameOf(err) == ofCircumstance {
			return err
		}
		err = p.attempt(ctx, []domain.Event{replacement(&e, cause, bare)})
	}
	if err != nil {
		return fmt.Errorf("an entry at %s can neither be written nor replaced: %w", e.Position, err)
	}
	return nil
}

// replacement is what history keeps of an event that cannot be written: its envelope,
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
	return e.Undecodable(reason, fields)
}

// attempt writes events in one transaction, or nothing of them. After a failure
// the outcome of the write is unknown, so the remembered state is void.
func (p *Projector) attempt(ctx context.Context, events []domain.Event) error {
	err := isolate.Run(p.logger, whereFold, func() error { return p.write(ctx, events) })
	if err != nil {
		p.forget()
		p.rows = copyRows{} // pgx' CopyFrom does not wait for its reader when a connection breaks
	}
	return err
}

// forget voids what is remembered of the database.
func (p *Projector) forget() {
	p.memory = newMemory(maxSystems)
	p.store.months.Clear()
}
