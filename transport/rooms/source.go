package rooms

import (
	"context"
	"errors"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// Source is the sequence of every system: history and log as one. It is safe
// for concurrent use.
type Source interface {
	// Locate returns the cursor of the newest event at or before a position. It
	// fails with [domain.ErrAhead] for a position beyond the newest event of the log.
	Locate(ctx context.Context, system domain.SystemID, after domain.Position) (domain.Cursor, error)

	// Page returns the next events after a cursor, at most max, with Seq and
	// without gap. It returns none when there is none yet, and fails with
	// [domain.ErrGap] when the cursor's seq is not that of its position.
	Page(ctx context.Context, system domain.SystemID, after domain.Cursor, max int) ([]domain.Event, error)

	// Subscribe gives fn every event after start, in order, with Seq and without
	// gap, from one goroutine at a time, perhaps before Subscribe returns. fn does
	// not block, keeps what it is given, and does not change it. An error is the
	// last that fn gets: the subscription is dead. cancel returns when fn runs no
	// more.
	Subscribe(ctx context.Context, system domain.SystemID, fn func([]domain.Event, error)) (start domain.Cursor, cancel func(), err error)

	// Snapshot returns the state of a system, as of a place that it names. The caller
	// must Release it. It fails with [admission.CodeBusy] when the system causes too
	// much work, or too many of its snapshots are held.
	Snapshot(ctx context.Context, system domain.SystemID) (*snapshot.Snapshot, error)
}

// ErrClosed says that the hub was closed.
var ErrClosed = errors.New("rooms: closed")

func isAhead(err error) bool { return errors.Is(err, domain.ErrAhead) }

// isGap reports whether the source found that a cursor's seq is not that of its
// position.
func isGap(err error) bool { return errors.Is(err, domain.ErrGap) }

// errGap says that a subscription left events out.
var errGap = errors.New("rooms: the source left out events")
