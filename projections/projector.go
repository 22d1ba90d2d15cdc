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

// Log is what is projected: package streams has it.
type Log interface {
	// Partitions is how many partitions there are, numbered from 0.
	Partitions() int
	// Follow gives fn every event of a partition after a position, in order,
	// without gap, in batches, until ctx ends, fn fails (then it returns fn's
	// error) or it cannot go on without a gap.
	Follow(ctx context.Context, partition int, after domain.Position, fn func([]domain.Event) error) error
	// Read returns up to limit events after a position, like Follow, and does not
	// wait.
	Read(ctx context.Context, partition int, after domain.Position, limit int) ([]domain.Event, error)
	// Tail is the last position that a partition ever gave.
	Tail(ctx context.Context, partition int) (domain.Position, error)
	// Ensure makes the partition exist, with everything to come after floor.
	Ensure(ctx context.Context, partition int, floor domain.Position) error
	// Expire removes what is both archived, up to a position, and old enough.
	Expire(ctx context.Context, partition int, archived domain.Position, now time.Time) error
}

// ErrStaleOwner says that somebody else moved the partition's checkpoint: this
// projector is not its owner any more, and has written nothing.
var ErrStaleOwner = errors.New("projections: another owner has moved the checkpoint")

// errReplaced says that the read models were replaced by a rebuild: what is
// remembered of them is void.
var errReplaced = errors.New("projections: the read models were replaced")

const (
	// maxBatch is how many events one transaction takes. Above it the gain is
	// small and the wait of readers grows.
	maxBatch = 1000
	// maxBatchBytes ends a batch of large events earlier.
	maxBatchBytes = 8 << 20
	// maxSystems is how many systems a projector remembers between batches.
	maxSystems = 1000
)

// Projector writes what the events of one partition say: history, read models,
// heads and checkpoint, together or not at all. Only one may run for a
// partition; a second one ends with [ErrStaleOwner] when it writes after the
// first.
type Projector struct {
	store     *Store
	log       Log
	partition int
	logger    *slog.Logger

	at         domain.Position // the checkpoint
	generation int64
	memory     *memory
	rows       copyRows
	unknown    int // failures in a row whose reason nobody knows
}

// NewProjector makes a Projector. It does nothing until Run.
func NewProjector(store *Store, log Log, partition int) *Projector {
	return &Projector{
		store: store, log: log, partition: partition,
		logger: store.logger.With("partition", partition), memory: newMemory(maxSystems),
	}
}

// Run projects from the checkpoint on until ctx ends or it fails. It may be
// called again after an error; it remembers nothing then and begins with what
// the database has.
func (p *Projector) Run(ctx context.Context) error {
	for {
		if err := p.begin(ctx); err != nil {
			return fmt.Errorf("projections: begin with partition %d: %w", p.partition, err)
		}
		err := p.log.Follow(ctx, p.partition, p.at, func(events []domain.Event) error { return p.project(ctx, events) })
		if !errors.Is(err, errReplaced) {
			return fmt.Errorf("projections: project partition %d: %w", p.partition, err)
		}
	}
}

// begin forgets everything, reads the checkpoint, and makes sure that the log
// goes on behind it.
func (p *Projector) begin(ctx context.Context) error {
	p.memory = newMemory(maxSystems)
	var at place
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
		p.store.failing.clear(p.partition) // nothing is left to fail with
	}
	return nil
}

// project writes events in transactions of bounded size, up to one whose position
// history cannot hold.
func (p *Projector) project(ctx context.Context, events []domain.Event) error {
	beyond := slices.IndexFunc(events, func(e domain.Event) bool { return !hasPlace(e.Position) })
	if beyond >= 0 {
		if err := p.project(ctx, events[:beyond]); err != nil {
			return err
		}
		return &beyondError{events[beyond].Position}
	}
	for len(events) > 0 {
		n, size := 1, len(events[0].Data)
		for n < min(len(events), maxBatch) && size < maxBatchBytes {
			size += len(events[n].Data)
			n++
		}
		if err := p.settle(ctx, events[:n]); err != nil {
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
	if err := p.store.makeRoom(ctx, events); err != nil {
		return err
	}
	began := time.Now()
	if err := p.commit(ctx, b); err != nil {
		return err
	}
	p.at = b.to
	p.memory.trim()
	p.store.counts.archived.Add(uint64(b.archived))
	p.store.counts.quarantined.Add(uint64(len(b.quarantined.ids)))
	p.store.counts.batches.Add(1)
	p.store.counts.writing.Add(int64(time.Since(began)))
	if n := len(b.quarantined.ids); n > 0 {
		p.logger.Warn("entries cannot be read; they are kept in quarantine", "entries", n,
			"first", b.quarantined.ids[0], "system", b.quarantined.systems[0], "reason", b.quarantined.reasons[0])
	}
	p.store.progress.note(p.partition, p.at)
	p.store.failing.clear(p.partition)
	return nil
}

// batch is what one transaction writes.
type batch struct {
	to          domain.Position
	copy        []byte // rows of history
	archived    int    // how many
	changes     changes
	quarantined quarantineColumns
}

func (p *Projector) prepare(ctx context.Context, events []domain.Event) (*batch, error) {
	if err := p.recall(ctx, events); err != nil {
		return nil, fmt.Errorf("load systems: %w", err)
	}
	b := &batch{to: events[len(events)-1].Position}
	p.rows.begin()
	touched := make(map[domain.SystemID]*ledger)
	for i := range events {
		e := events[i]
		if e.SystemID == "" {
			b.quarantined.add(&e, faultOf(&e, nil))
			continue
		}
		l := p.memory.get(e.SystemID)
		counted, err := l.count(&e)
		if err != nil {
			return nil, err
		}
		if counted.fault != nil {
			b.quarantined.add(&e, counted.fault)
		}
		p.rows.add(&e, &counted)
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

// recall loads the systems of a batch that are not remembered, all at once.
func (p *Projector) recall(ctx context.Context, events []domain.Event) error {
	var missing []domain.SystemID
	for i := range events {
		if system := events[i].SystemID; system != "" && p.memory.miss(system) {
			missing = append(missing, system)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// A row that was damaged must not stop its system, and a system not the others.
	loaded, err := loadLedgers(ctx, p.store.pool, readModels, missing, func(system domain.SystemID, id string, err error) {
		p.logger.Error("a row of the read models cannot be read and is left out; plugcast rebuild restores it",
			"system", system, "row", id, "error", err)
	})
	if err != nil {
		return err
	}
	for _, l := range loaded {
		p.memory.put(l)
	}
	return nil
}

// moveCheckpoint comes first in the transaction: it stops a stale owner before
// it writes anything, and makes owners wait while a rebuild swaps.
const moveCheckpoint = `
UPDATE checkpoints SET (position_ms, position_seq, moved_at) = ($4, $5, now())
 WHERE partition = $1 AND position_ms = $2 AND position_seq = $3
RETURNING generation`

func (p *Projector) commit(ctx context.Context, b *batch) error {
	conn, err := p.store.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	defer conn.Release() // closes a connection that is still in a transaction

	from, to := placeOf(p.at), placeOf(b.to)
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
