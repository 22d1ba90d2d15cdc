package rest

import (
	"context"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// The costs of reads, in the units of Config.Work. A unit is about one connection
// to the database; a fold of history also takes a processor for its whole time.
const (
	costRow  = 1 // single rows
	costPage = 2 // a page of a list or of history
	costFold = 6 // the state as of a moment in the past
)

// Snapshots is where the present state of a system comes from, encoded.
type Snapshots interface {
	// Snapshot returns a snapshot that is not older than the call. The caller must
	// Release it. It fails with [admission.CodeBusy].
	Snapshot(ctx context.Context, system domain.SystemID) (*snapshot.Snapshot, error)
}

// unsent is what is held for an answer until it was sent, or cannot be.
type unsent struct {
	mu   sync.Mutex
	held []func()
}

func (u *unsent) sent() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, release := range u.held {
		release()
	}
	u.held = nil
}

// untilSent calls release when the answer to the request of ctx was sent.
func untilSent(ctx context.Context, release func()) {
	u := ctx.Value(unsentKey).(*unsent)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = append(u.held, release)
}

// reserve counts an answer of so many bytes for the system until it was sent. It
// waits, and fails with [admission.CodeBusy], when callers of the system read too
// slowly what they asked for.
func (a *API) reserve(ctx context.Context, system domain.SystemID, bytes int) (*admission.Grant, error) {
	grant, err := a.answers.Admit(ctx, system, bytes)
	if err != nil {
		return nil, err
	}
	untilSent(ctx, grant.Release)
	return grant, nil
}

// admitRead waits until a read of the cost may begin. It is for the reading alone:
// an answer that is read slowly must not keep others from the database. A read that is
// about no system counts as the platform's. done must be deferred: a read that
// panics must not keep its place.
//
// Every operation that reads is admitted, also one that looks up what a command is
// about. Commands themselves are not: a system's reads must not hold up its commands,
// which the rate limits bound.
func (a *API) admitRead(ctx context.Context, system domain.SystemID, cost int) (done func(), err error) {
	if system == "" {
		system = domain.PlatformSystem
	}
	grant, err := a.work.Admit(ctx, system, cost)
	return grant.Release, err
}

// pieceBytes is how much of a large answer is written at a time.
const pieceBytes = 64 << 10

// streamed is an answer in JSON that a function writes piece by piece.
func streamed(write func(send func([]byte) bool)) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", "application/json")
		write(func(piece []byte) bool {
			_, err := ctx.BodyWriter().Write(piece) // a caller who is gone gets nothing more
			return err == nil
		})
	}}
}

// sendAll sends bytes in pieces.
func sendAll(b []byte, send func([]byte) bool) bool {
	for len(b) > 0 {
		n := min(len(b), pieceBytes)
		if !send(b[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
