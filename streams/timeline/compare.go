package timeline

import (
	"context"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

const (
	// comparedPerRound is how many systems of a partition one round compares. Each
	// costs one or two queries of the archive.
	comparedPerRound = 4
	// comparingAtOnce bounds the concurrent comparisons, and compareTimeout each of them.
	comparingAtOnce = 64
	compareTimeout  = 5 * time.Second
)

// compare starts the comparison with the archive, once. The caller holds the lock of a partition that is not closed, so
// that Close waits for it.
func (t *Timeline) compare() {
	if t.config.CompareEvery > 0 {
		t.comparing.Do(func() {
			t.working.Go(func() { isolate.Loop(t.closing, t.logger, "timeline", t.compareLoop) })
		})
	}
}

// compareLoop compares the numbers given to subscriptions with the archive, until Close. Each
// system is compared independently: one whose comparison fails or hangs is paused, and does not
// delay the others.
func (t *Timeline) compareLoop() {
	systems := isolate.NewKeyedPool[domain.SystemID](t.logger, "comparison with the archive", comparingAtOnce, compareTimeout)
	defer systems.Wait()
	backoff.Every(t.closing, t.config.CompareEvery, func(time.Time) {
		for i := range t.partitions {
			p := &t.partitions[i]
			// The random order of a map picks the systems, so every system has its turn.
			for _, c := range p.candidates(comparedPerRound) {
				systems.Go(t.closing, c.system, func(ctx context.Context) error { return p.compareOne(ctx, c) })
			}
		}
	})
}

// candidate is a cursor that was given to subscriptions, to be compared with the archive.
type candidate struct {
	run    *run
	system domain.SystemID
	cursor domain.Cursor
}

// candidates picks up to n systems, and samples the cursor of each. A busy system is always
// ahead of the archive; therefore a sample stays until the archive has reached it.
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

// compareOne compares one candidate with the archive, and ends the system's subscriptions if they
// differ.
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
	p.timeline.logger.Error("the sequence of a system differs from the archive; its subscriptions end and start again",
		"system", c.system, "numbered", c.cursor.String(), "archived", archived.String())
	c.run.drop(c.system, c.cursor, fmt.Errorf("%w: numbered %s, archived %s", ErrMiscounted, c.cursor, archived))
	return nil
}

// archived returns the archive's cursor at a candidate's position, or nil if the archive has
// not come that far.
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
