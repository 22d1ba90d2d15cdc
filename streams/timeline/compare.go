package timeline

import (
	"context"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// comparedAtOnce is how many systems of a partition one round compares. The
// archive is asked once or twice for each.
const comparedAtOnce = 4

// keepComparing compares what is counted with what is archived, until Close.
func (t *Timeline) keepComparing() {
	ticker := time.NewTicker(t.config.CompareEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-t.closing.Done():
			return
		}
		for i := range t.partitions {
			t.partitions[i].compare(t.closing, comparedAtOnce)
		}
	}
}

// compare takes up to n systems. Which ones is left to the order of a map,
// which is random: all have their turn.
func (p *partition) compare(ctx context.Context, n int) {
	for _, c := range p.candidates(n) {
		err := p.compareOne(ctx, c)
		if err != nil && ctx.Err() == nil {
			p.timeline.logger.Warn("a sequence cannot be compared with the archive", "system", c.system, "error", err)
			return // the archive is away: no use in asking for others
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
	p.timeline.logger.Error("the numbers of a system differ from the archive; its readers begin anew",
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
