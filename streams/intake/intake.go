// Package intake imports events of other deployments, each exactly once, however often and by
// however many routes they come.
//
// Two mechanisms ensure that. A cursor per source and system, in Redis beside the stream, moves
// atomically with the append, so events that a source repeats are left out. And an event is
// identified by its origin and id: until it is archived in a set beside the stream, and from
// then on in history. Neither expires.
//
// A Redis that is wiped, or set back behind the archive, loses the cursors. The source is then
// read again from the cursor that was last saved in the database, or from its beginning, and
// history knows which events exist. So no event is lost, and none appears twice.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/streams"
)

// Archive is the archive of the log: the database.
type Archive interface {
	// ArchivedImports returns how far the system's partition is archived, and which of the events are
	// in its history, both as of one moment.
	ArchivedImports(ctx context.Context, system domain.SystemID, events []Key) (domain.Position, map[Key]bool, error)
	// BridgeCursor returns the saved cursor of a source, or false.
	BridgeCursor(ctx context.Context, system domain.SystemID, source string) (domain.Position, bool, error)
	// SaveBridgeCursor saves the cursor of a source; it never moves it back.
	SaveBridgeCursor(ctx context.Context, system domain.SystemID, source string, at domain.Position) error
	// RewindBridgeCursor moves a saved cursor back.
	RewindBridgeCursor(ctx context.Context, system domain.SystemID, source string, to domain.Position) error
	// Fence makes an archiver discard the entries of a partition that it has read and not
	// written yet: it reads them again.
	Fence(ctx context.Context, partition int) error
	// WaitFor returns once a partition is archived up to a position.
	WaitFor(ctx context.Context, partition int, at domain.Position) error
}

// Key names an event across deployments.
type Key struct{ Origin, ID string }

// Intake imports events into the log of this deployment. It is safe for concurrent use, in any
// number of processes.
type Intake struct {
	log        *streams.Log
	archive    Archive
	quota      domain.DeviceQuota
	deployment string
	logger     *slog.Logger

	mu     sync.Mutex
	fenced map[int]string // by partition: the incarnation of the stream since which its archiver is fenced
}

// New returns the Intake of the deployment with that id. A nil quota admits every device. A nil
// logger discards its lines.
func New(log *streams.Log, archive Archive, quota domain.DeviceQuota, deployment string, logger *slog.Logger) *Intake {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Intake{log: log, archive: archive, quota: quota, deployment: deployment, logger: logger, fenced: map[int]string{}}
}

// Deployment is the id of this deployment.
func (in *Intake) Deployment() string { return in.deployment }

// maxTries bounds how often the archive is looked up again because it advanced.
const maxTries = 8

// Cursor returns the position up to which the log of a source was imported. known is false for
// an unknown source.
func (in *Intake) Cursor(ctx context.Context, system domain.SystemID, source string) (at domain.Position, known bool, err error) {
	at, known, err = in.log.SourceCursor(ctx, system, source)
	if err != nil || known {
		return at, known, err
	}
	if at, known, err = in.archive.BridgeCursor(ctx, system, source); err != nil || !known {
		return at, false, err
	}
	in.logger.Warn("Redis has no cursor of a bridge; continuing from the saved one",
		"system", system, "source", source, "position", at.String())
	if err := in.log.StartSource(ctx, system, source, at); err != nil {
		return at, false, err
	}
	restored, known, err := in.log.SourceCursor(ctx, system, source)
	if err == nil && !known {
		return at, true, nil // the repair of the lost stream deleted it again; the next call restores it
	}
	return restored, known, err
}

// SkipTo skips the log of a source up to a position, unless the source has a cursor. It first
// saves the position in the database, which outlasts Redis.
func (in *Intake) SkipTo(ctx context.Context, system domain.SystemID, source string, at domain.Position) error {
	if _, known, err := in.Cursor(ctx, system, source); err != nil || known {
		return err
	}
	if err := in.checkSourceLimit(ctx, system); err != nil {
		return err
	}
	if err := in.archive.SaveBridgeCursor(ctx, system, source, at); err != nil {
		return err
	}
	return in.log.StartSource(ctx, system, source, at)
}

// maxSources bounds how many deployments' logs are imported into one system: their cursors are
// kept for ever, and the token of any bridge could add more.
const maxSources = 128

// checkSourceLimit fails if the system can have no further source. Concurrent calls may all
// succeed.
func (in *Intake) checkSourceLimit(ctx context.Context, system domain.SystemID) error {
	sources, err := in.log.Sources(ctx, in.log.Partition(system))
	if err != nil {
		return err
	}
	n := 0
	for _, s := range sources {
		if s.System == system {
			n++
		}
	}
	if n >= maxSources {
		return domain.Fail(domain.KindConflict, domain.CodeTooManySources,
			fmt.Sprintf("events of %d other deployments were imported into this system, and no further deployment is allowed", n))
	}
	return nil
}

// Rewind moves the cursor of a source back, if it is after the position: the source lost its
// later events, and may give their positions to other events. Events that are read again
// because of that are recognised by their ids.
func (in *Intake) Rewind(ctx context.Context, system domain.SystemID, source string, to domain.Position) error {
	at, known, err := in.Cursor(ctx, system, source)
	if err != nil || !known || !at.After(to) {
		return err
	}
	in.logger.Error("a source lost events that were imported from it; moving its cursor back",
		"system", system, "source", source, "from", at.String(), "to", to.String())
	if err := in.archive.RewindBridgeCursor(ctx, system, source, to); err != nil {
		return err
	}
	if err := in.log.RewindSource(ctx, system, source, to); err != nil {
		return err
	}
	// Again, because the owner may have saved the cursor that it had read in Redis before.
	return in.archive.RewindBridgeCursor(ctx, system, source, to)
}

// Import appends the new events of the batch and moves the cursor of its source, atomically. It
// may be repeated after any error. Events that were first appended here are left out, and
// events without an origin get the source as origin. An event whose data does not fit its type,
// or whose device is beyond the quota, is stored as undecodable. Import fails with
// [*domain.ImportGapError] if the source has events before the batch that were not imported,
// and otherwise with a [domain.Error].
func (in *Intake) Import(ctx context.Context, b domain.ImportBatch) (domain.ImportResult, error) {
	if err := in.check(&b); err != nil {
		return domain.ImportResult{}, err
	}
	own := 0
	events := make([]domain.Event, 0, len(b.Events))
	for i := range b.Events {
		if b.Events[i].Origin == in.deployment {
			own++
			continue
		}
		events = append(events, b.Events[i].AsImported(b.Source))
	}
	for range maxTries {
		imported, err := in.importOnce(ctx, b, events)
		if errors.Is(err, streams.ErrStale) {
			continue
		}
		imported.Own = own
		return imported, err
	}
	return domain.ImportResult{}, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable,
		"the archive advances too fast to be looked up; nothing was appended; repeat in a moment")
}

func (in *Intake) check(b *domain.ImportBatch) error {
	if b.System == domain.PlatformSystem {
		return domain.Fail(domain.KindForbidden, domain.CodeForbidden, "the platform's own system is not bridged")
	}
	if _, err := domain.ParseSystemID(string(b.System)); err != nil {
		return err
	}
	if _, err := domain.ParseDeployment(b.Source); err != nil {
		return err
	}
	if b.Source == in.deployment {
		return domain.Invalid(domain.CodeInvalidDeployment, "the source is this deployment itself")
	}
	if b.Through.Before(b.After) {
		return domain.Invalid(domain.CodeInvalidPosition, "a batch ends before it begins")
	}
	at := b.After
	for i := range b.Events {
		e := &b.Events[i]
		var err error
		switch {
		case e.SystemID != b.System:
			err = domain.Invalid(domain.CodeInvalidSystemID, "its system is not that of the batch")
		case !e.Position.After(at) || e.Position.After(b.Through):
			err = domain.Invalid(domain.CodeInvalidPosition, "its position is not between the previous position and the end of the batch")
		case e.Origin != "":
			_, err = domain.ParseOrigin(e.Origin)
		}
		if err != nil {
			return domain.AtIndex(err, i)
		}
		at = e.Position
	}
	return nil
}

// importOnce makes one attempt. If the archive advances between the lookup and the append, the
// append fails with [streams.ErrStale].
func (in *Intake) importOnce(ctx context.Context, b domain.ImportBatch, events []domain.Event) (domain.ImportResult, error) {
	incarnation, err := in.log.Incarnation(ctx, in.log.Partition(b.System))
	if err != nil {
		return domain.ImportResult{}, unavailable(err)
	}
	if err := in.fenceArchiver(ctx, in.log.Partition(b.System), incarnation); err != nil {
		return domain.ImportResult{}, unavailable(err)
	}
	// Cursor also uses the saved one: otherwise the batch would seem to have a gap before it.
	_, begun, err := in.Cursor(ctx, b.System, b.Source)
	if err == nil && !begun {
		err = in.checkSourceLimit(ctx, b.System)
	}
	if err != nil {
		return domain.ImportResult{}, unavailable(err)
	}
	keys := make([]Key, len(events))
	for i := range events {
		keys[i] = Key{events[i].Origin, events[i].ID}
	}
	archived, known, err := in.archive.ArchivedImports(ctx, b.System, keys)
	if err != nil {
		return domain.ImportResult{}, unavailable(err)
	}
	b.Events = make([]domain.Event, 0, len(events))
	for i := range events {
		if !known[keys[i]] {
			b.Events = append(b.Events, events[i])
		}
	}
	admission, refused, err := in.admit(ctx, &b)
	if err != nil {
		return domain.ImportResult{}, unavailable(err)
	}
	imported, err := in.log.Import(ctx, b, streams.ArchiveView{Incarnation: incarnation, Archived: archived})
	admission.SettleAppend(err)
	if err == nil && refused > 0 {
		in.logger.Warn("events of another deployment are about devices beyond the quota; stored as undecodable",
			"system", b.System, "source", b.Source, "events", refused, "detail", admission.Refusal().Detail)
	}
	imported.Duplicates += len(events) - len(b.Events)
	imported.Refused = refused
	return imported, err
}

// admit asks the quota to admit the devices that the batch introduces. It makes the events
// of refused devices undecodable, so that they do not stop the link, and counts them.
func (in *Intake) admit(ctx context.Context, b *domain.ImportBatch) (a domain.Admission, refused int, err error) {
	if in.quota == nil {
		return a, 0, nil
	}
	introduced := make([]domain.DeviceID, len(b.Events))
	var devices []domain.DeviceID
	for i := range b.Events {
		if introduced[i] = b.Events[i].Introduces(); introduced[i] != "" {
			devices = append(devices, introduced[i])
		}
	}
	if len(devices) == 0 {
		return a, 0, nil
	}
	if a, err = in.quota.Admit(ctx, b.System, devices); err != nil || a.Refused == nil {
		return a, 0, err
	}
	for i := range b.Events {
		if a.Refused[introduced[i]] {
			b.Events[i] = b.Events[i].AsRejectedImport(a.Refusal())
			refused++
		}
	}
	return a, refused, nil
}

// fenceArchiver ensures that history gets no more entries of an earlier stream: an archiver may have
// read them, and would write them after the lookup.
func (in *Intake) fenceArchiver(ctx context.Context, partition int, incarnation string) error {
	in.mu.Lock()
	done := in.fenced[partition] == incarnation
	in.mu.Unlock()
	if done {
		return nil
	}
	if err := in.archive.Fence(ctx, partition); err != nil {
		return err
	}
	in.mu.Lock()
	in.fenced[partition] = incarnation
	in.mu.Unlock()
	return nil
}

func unavailable(err error) error {
	if domain.AsError(err).Kind != domain.KindInternal {
		return err
	}
	return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable,
		"the log or the archive cannot be reached; nothing was appended; repeat in a moment").WithCause(err)
}

// saveEvery is the interval at which cursors are saved. After a loss of Redis, at most that
// much is read again.
const saveEvery = 15 * time.Second

// Run is a job of the partition's owner: it saves the cursors of the partition at intervals
// until ctx ends.
func (in *Intake) Run(ctx context.Context, partition int) {
	saved := map[streams.Source]bool{}
	backoff.Every(ctx, saveEvery, func(time.Time) {
		if err := in.save(ctx, partition, saved); err != nil && ctx.Err() == nil {
			in.logger.Warn("cannot save the cursors of bridges; trying again", "partition", partition, "error", err)
		}
	})
}

// Save saves the cursors of the partition, once everything up to them is archived.
func (in *Intake) SaveCursors(ctx context.Context, partition int) error {
	return in.save(ctx, partition, map[streams.Source]bool{})
}

func (in *Intake) save(ctx context.Context, partition int, saved map[streams.Source]bool) error {
	before, err := in.log.Incarnation(ctx, partition)
	if err != nil {
		return err
	}
	sources, err := in.log.Sources(ctx, partition)
	if err != nil {
		return err
	}
	var moved []streams.Source
	for _, s := range sources {
		if !saved[s] {
			moved = append(moved, s)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	newest, err := in.log.Newest(ctx, moved[0].System)
	if err != nil {
		return err
	}
	// If Redis was lost in between, the newest event says nothing about the events before the
	// cursors.
	if now, err := in.log.Incarnation(ctx, partition); err != nil || now != before {
		return err
	}
	if err := in.archive.WaitFor(ctx, partition, newest); err != nil {
		return err
	}
	for _, s := range moved {
		if err := in.saveOne(ctx, s); err != nil {
			return fmt.Errorf("save the cursor of %s in %s: %w", s.Name, s.System, err)
		}
	}
	clear(saved)
	for _, s := range sources {
		saved[s] = true
	}
	return nil
}

// saveOne saves a cursor that was read in Redis, and moves the saved one back if the cursor in
// Redis was rewound since. Rewind works in the opposite order, so that whichever comes last
// sees the other.
func (in *Intake) saveOne(ctx context.Context, s streams.Source) error {
	if err := in.archive.SaveBridgeCursor(ctx, s.System, s.Name, s.Position); err != nil {
		return err
	}
	now, known, err := in.log.SourceCursor(ctx, s.System, s.Name)
	if err != nil || !known || !now.Before(s.Position) {
		return err
	}
	return in.archive.RewindBridgeCursor(ctx, s.System, s.Name, now)
}
