package timeline

import (
	"context"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

const (
	// comparedPerRound is how many systems of a partition one round compares. The
	// archive is asked once or twice for each.
	comparedPerRound = 4
	// comparingAtOnce bounds the comparisons under way, and compareTimeout each.
	comparingAtOnce = 64
	compareTimeout  = 5 * time.Second
)

// keepComparing compares what is counted with what is archived, until Close. Each
// system is compared by itself: one for which the archive fails or hangs is
// left for a while, and keeps no other from its turn.
func (t *Timeline) keepComparing() {
	systems := isolate.NewKeys[domain.SystemID](t.logger, "comparison with the archive", comparingAtOnce, compareTimeout)
	defer systems.Wait()
	ticker := time.NewTicker(t.config.CompareEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-t.closing.Done():
			return
		}
		for i := range t.partitions {
			p := &t.partitions[i]
			// Which systems these are is left to the order of a map, which is
			// random: all have their turn.
			for _, c := range p.candidates(comparedPerRound) {
				systems.Go(t.closing, c.system, func(ctx context.Context) error { return p.compareOne(ctx, c) })
			}
		}
	}
}

// candidate is a cursor that was given to subscriptions.
type candidate struct {
	run    *run
	system domain.SystemID
	cursor domain.Cursor
}

// candidates picks systems and notes for each where it is. A busy system is
// always ahead of the archive, so that a cursor once noted stays until the
// archive has reached it.
func (p *partition) candidates(n int) []candidate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return nil
	}
	var picked []candidate
	for system, s := range p.run.tracker.systems {
		if len(picked) == n {
			break
		}
		if s.sample.Position.IsZero() {
			s.sample = s.cursor
		}
		if !s.sample.Position.IsZero() {
			picked = append(picked, candidate{p.run, system, s.sample})
		}
	}
	return picked
}

func (p *partition) compareOne(ctx context.Context, c candidate) error {
	archived, err := p.archived(ctx, c)
	if err != nil || archived == nil {
		return err
	}
	if *archived == c.cursor {
		p.mu.Lock()
		if s := c.run.tracker.systems[c.system]; s != nil && s.sample == c.cursor {
			s.sample = domain.Cursor{}
		}
		p.mu.Unlock()
		return nil
	}
	p.timeline.logger.Error("the numbers of a system differ from the archive; its readers begin again",
		"system", c.system, "counted", c.cursor.String(), "archived", archived.String())
	c.run.drop(c.system, c.cursor, fmt.Errorf("%w: counted %s, archived %s", ErrMiscounted, c.cursor, archived))
	return nil
}

// archived returns what the archive has at a cursor's position, or nil while it
// has not come that far.
func (p *partition) archived(ctx context.Context, c candidate) (*domain.Cursor, error) {
	checkpoint, head, err := p.timeline.history.Base(ctx, c.system)
	switch {
	case err != nil:
		return nil, err
	case head == c.cursor:
		return &head, nil
	case checkpoint.Before(c.cursor.Position):
		return nil, nil
	}
	at, err := p.timeline.history.Locate(ctx, c.system, c.cursor.Position)
	return &at, err
}
