package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// Log is the log that is projected: package streams implements it.
type Log interface {
	// Partitions returns the number of partitions, which are numbered from 0.
	Partitions() int
	// Follow calls fn with every event of a partition after a position, in order, without gap,
	// in batches. It returns when ctx ends, with fn's error when fn fails, or with an error
	// when it cannot continue without a gap.
	Follow(ctx context.Context, partition int, after domain.Position, fn func([]domain.Event) error) error
	// Read returns up to limit events after a position, like Follow, and does not wait.
	Read(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, error)
	// Tail returns the last position that a partition ever assigned.
	Tail(ctx context.Context, partition int) (domain.Position, error)
	// Ensure ensures that the partition exists, and that later positions are after floor.
	Ensure(ctx context.Context, partition int, floor domain.Position) error
	// Expire removes the entries that are both archived, up to a position, and old enough.
	Expire(ctx context.Context, partition int, archived domain.Position, now time.Time) error
}

// ErrStaleOwner means that another process moved the partition's checkpoint: this projector no
// longer owns the partition, and has written nothing.
var ErrStaleOwner = errors.New("projections: another owner has moved the checkpoint")

// errReplaced means that a rebuild replaced the read models: cached states are void.
var errReplaced = errors.New("projections: the read models were replaced")

const (
	// maxBatch is the most events of one transaction. Above it the gain is small and readers
	// wait longer.
	maxBatch = 1000
	// maxBatchBytes ends a batch of large events earlier.
	maxBatchBytes = 8 << 20
	// maxSystems is how many systems a projector caches between batches.
	maxSystems = 1000
)

// Projector writes the events of one partition: history, read models, heads and checkpoint,
// together or not at all. Only one may run for a partition; a second one ends with
// [ErrStaleOwner] if it writes after the first.
type Projector struct {
	store     *Store
	log       Log
	partition int
	logger    *slog.Logger

	at         domain.Position // the checkpoint
	generation int64
	states     *lru
	rows       copyRows
	unknown    int // consecutive failures with an unforeseen reason
}

// NewProjector returns a Projector. It starts nothing.
func NewProjector(store *Store, log Log, partition int) *Projector {
	return &Projector{
		store: store, log: log, partition: partition,
		logger: store.logger.With("partition", partition), states: newLRU(maxSystems),
	}
}

// Run projects from the checkpoint on until ctx ends, and then returns nil, or until it fails.
// It may be called again, and then starts from the state of the database.
func (p *Projector) Run(ctx context.Context) error {
	for {
		if err := p.begin(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("projections: start partition %d: %w", p.partition, err)
		}
		err := p.log.Follow(ctx, p.partition, p.at, func(events []domain.Event) error { return p.project(ctx, events) })
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errReplaced) {
			return fmt.Errorf("projections: project partition %d: %w", p.partition, err)
		}
	}
}

// begin drops the cached states, reads the checkpoint, and ensures that the log continues
// behind it.
func (p *Projector) begin(ctx context.Context) error {
	p.states = newLRU(maxSystems)
	var at pos
	err := p.store.pool.QueryRow(ctx, `
		WITH made AS (INSERT INTO checkpoints (partition) VALUES ($1) ON CONFLICT DO NOTHING RETURNING 1)
		SELECT coalesce(max(position_ms), 0), coalesce(max(position_seq), 0), coalesce(max(generation), 0)
		  FROM checkpoints WHERE partition = $1`, p.partition).Scan(&at.ms, &at.n, &p.generation)
	if err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	p.at = at.position()
	p.store.progress.note(p.partition, p.at)
	if err := p.log.Ensure(ctx, p.partition, p.at); err != nil {
		return err
	}
	if tail, err := p.log.Tail(ctx, p.partition); err == nil && !tail.After(p.at) {
		p.store.failing.clear(p.partition) // there is nothing left to project
	}
	return nil
}

// project writes events in transactions of bounded size, up to an event whose position history
// cannot hold.
func (p *Projector) project(ctx context.Context, events []domain.Event) error {
	overflow := slices.IndexFunc(events, func(e domain.Event) bool { return !fits(e.Position) })
	if overflow >= 0 {
		if err := p.project(ctx, events[:overflow]); err != nil {
			return err
		}
		return &overflowError{events[overflow].Position}
	}
	for len(events) > 0 {
		n, size := 1, len(events[0].Data)
		for n < min(len(events), maxBatch) && size < maxBatchBytes {
			size += len(events[n].Data)
			n++
		}
		if err := p.writeIsolating(ctx, events[:n]); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// write folds a batch and writes it in one transaction.
func (p *Projector) write(ctx context.Context, events []domain.Event) error {
	b, err := p.prepare(ctx, events)
	if err != nil {
		return err
	}
	if err := p.store.ensureMonths(ctx, events); err != nil {
		return err
	}
	began := time.Now()
	if err := p.commit(ctx, b); err != nil {
		return err
	}
	p.at = b.to
	p.states.trim()
	p.store.counts.archived.Add(uint64(b.archived))
	p.store.counts.quarantined.Add(uint64(len(b.quarantined.ids)))
	p.store.counts.batches.Add(1)
	p.store.counts.writing.Add(int64(time.Since(began)))
	if n := len(b.quarantined.ids); n > 0 {
		p.logger.Warn("entries cannot be decoded; they are in quarantine", "entries", n,
			"first", b.quarantined.ids[0], "system", b.quarantined.systems[0], "reason", b.quarantined.reasons[0])
	}
	p.store.progress.note(p.partition, p.at)
	p.store.failing.clear(p.partition)
	return nil
}

// batch is the content of one transaction.
type batch struct {
	to          domain.Position
	copy        []byte // rows of history
	archived    int    // number of rows
	changes     changes
	quarantined quarantineColumns
}

func (p *Projector) prepare(ctx context.Context, events []domain.Event) (*batch, error) {
	if err := p.load(ctx, events); err != nil {
		return nil, fmt.Errorf("load systems: %w", err)
	}
	b := &batch{to: events[len(events)-1].Position}
	p.rows.begin()
	touched := make(map[domain.SystemID]*stateCache)
	for i := range events {
		e := events[i]
		if e.SystemID == "" {
			b.quarantined.add(&e, faultOf(&e, nil))
			continue
		}
		l := p.states.get(e.SystemID)
		row, err := l.number(&e)
		if err != nil {
			return nil, err
		}
		if row.fault != nil {
			b.quarantined.add(&e, row.fault)
		}
		p.rows.add(&e, &row)
		b.archived++
		touched[e.SystemID] = l
	}
	b.copy = p.rows.end()
	for _, l := range touched {
		if err := b.changes.gather(l); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// load loads the systems of a batch that are not cached, all at once.
func (p *Projector) load(ctx context.Context, events []domain.Event) error {
	var missing []domain.SystemID
	for i := range events {
		if system := events[i].SystemID; system != "" && p.states.miss(system) {
			missing = append(missing, system)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// A damaged row must not stop its system, nor the other systems.
	loaded, err := loadStates(ctx, p.store.pool, readModels, missing, func(system domain.SystemID, id string, err error) {
		p.logger.Error("a row of the read models cannot be decoded and is omitted; plugcast rebuild restores it",
			"system", system, "row", id, "error", err)
	})
	if err != nil {
		return err
	}
	for _, l := range loaded {
		p.states.put(l)
	}
	return nil
}

// moveCheckpoint comes first in the transaction: it stops a stale owner before it writes
// anything, and makes owners wait during a rebuild's swap.
const moveCheckpoint = `
UPDATE checkpoints SET (position_ms, position_seq, moved_at) = ($4, $5, now())
 WHERE partition = $1 AND position_ms = $2 AND position_seq = $3
RETURNING generation`

func (p *Projector) commit(ctx context.Context, b *batch) error {
	conn, err := p.store.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	defer conn.Release() // closes the connection if it is still in a transaction

	from, to := posOf(p.at), posOf(b.to)
	opening := &pgx.Batch{}
	opening.Queue("BEGIN")
	opening.Queue("SELECT pg_advisory_xact_lock($1::int, $2::int)", writeLocks, p.partition)
	opening.Queue(moveCheckpoint, p.partition, from.ms, from.n, to.ms, to.n)
	results := conn.SendBatch(ctx, opening)
	var generation int64
	if _, err = results.Exec(); err == nil {
		_, err = results.Exec()
	}
	if err == nil {
		err = results.QueryRow().Scan(&generation)
	}
	if closing := results.Close(); err == nil {
		err = closing
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrStaleOwner
	case err != nil:
		return fmt.Errorf("move the checkpoint: %w", err)
	case generation != p.generation:
		return errReplaced
	}
	if _, err := conn.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(b.copy), copyHistory); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	closing := &pgx.Batch{}
	b.changes.queue(closing, readModels)
	b.changes.queueHeads(closing, p.partition)
	b.quarantined.queue(closing, p.partition)
	closing.Queue("COMMIT")
	if err := conn.SendBatch(ctx, closing).Close(); err != nil {
		return fmt.Errorf("write read models: %w", err)
	}
	return nil
}
