package rooms

import (
	"context"
	"errors"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// Source is the sequence of events of every system, with history and log as one. It is safe
// for concurrent use.
type Source interface {
	// Locate returns the cursor of the newest event at or before a position. It
	// fails with [domain.ErrAhead] for a position beyond the newest event of the log.
	Locate(ctx context.Context, system domain.SystemID, after domain.Position) (domain.Cursor, error)

	// Page returns the next events after a cursor, at most max, with Seq and without gaps.
	// It returns none if there are none yet. It fails with [domain.ErrGap] if the cursor's
	// seq does not belong to its position.
	Page(ctx context.Context, system domain.SystemID, after domain.Cursor, max int) ([]domain.Event, error)

	// Subscribe calls fn with every event after start, in order, with Seq and without
	// gaps, from one goroutine at a time, possibly before Subscribe returns. fn does not
	// block; it may keep the events but must not change them. After fn gets an error, the
	// subscription is dead and fn is not called again. After cancel returns, fn does not run.
	Subscribe(ctx context.Context, system domain.SystemID, fn func([]domain.Event, error)) (start domain.Cursor, cancel func(), err error)

	// Snapshot returns the state of a system at the place that the snapshot names. The
	// caller must Release it. It fails with [admission.CodeBusy] if the system causes too
	// much work, or if clients hold too many of its snapshots.
	Snapshot(ctx context.Context, system domain.SystemID) (*snapshot.Snapshot, error)
}

// ErrClosed says that the hub was closed.
var ErrClosed = errors.New("rooms: closed")

func isAhead(err error) bool { return errors.Is(err, domain.ErrAhead) }

// isGap reports whether the source found that a cursor's seq does not belong to its
// position.
func isGap(err error) bool { return errors.Is(err, domain.ErrGap) }

// errGap says that a subscription omitted events.
var errGap = errors.New("rooms: the source omitted events")
