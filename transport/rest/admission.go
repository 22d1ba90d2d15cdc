package rest

import (
	"context"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// The costs of reads, in the rate limit and in the units of Config.Work. A unit of
// work is about one database connection. A fold of history also keeps one processor
// busy.
const (
	costRow  = 1 // single rows, and everything that is no read
	costPage = 2 // a page of a list or of history
	costFold = 6 // the state at a time in the past

	// SnapshotCost is that of a snapshot. The cache that makes snapshots for all faces charges
	// the units of work, and this API the rate limit.
	SnapshotCost = 3
)

// Snapshots returns the present states of systems, encoded.
type Snapshots interface {
	// Snapshot returns a snapshot that is not older than the call. The caller must
	// Release it. Errors: [admission.CodeBusy].
	Snapshot(ctx context.Context, system domain.SystemID) (*snapshot.Snapshot, error)
}

// unsentAnswer holds the resources of a request's answer until the answer was sent
// or the connection failed.
type unsentAnswer struct {
	mu       sync.Mutex
	releases []func()
}

func (u *unsentAnswer) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, release := range u.releases {
		release()
	}
	u.releases = nil
}

// releaseWhenSent calls release once the answer to the request of ctx was sent.
func releaseWhenSent(ctx context.Context, release func()) {
	u := ctx.Value(unsentKey).(*unsentAnswer)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.releases = append(u.releases, release)
}

// reserve charges the system for an answer of the given size until the answer was
// sent. While the system has too many unsent bytes, because its clients read their
// answers slowly, reserve waits; in the end it fails with [admission.CodeBusy].
func (a *API) reserve(ctx context.Context, system domain.SystemID, bytes int) (*admission.Grant, error) {
	grant, err := a.answers.Admit(ctx, system, bytes)
	if err != nil {
		return nil, err
	}
	releaseWhenSent(ctx, grant.Release)
	return grant, nil
}

// admitRead waits until a read of the given cost may begin. Call done after the read
// and before the answer is sent: a client that reads slowly must not keep others from
// the database. Defer done, so that a read that panics gives its place back. A read
// about no system counts as the platform's.
//
// Every read is admitted, also the lookup of a command's target. Commands are not
// admitted: rate limits bound them, and a system's reads must not delay its commands.
func (a *API) admitRead(ctx context.Context, system domain.SystemID, cost int) (done func(), err error) {
	if system == "" {
		system = domain.PlatformSystem
	}
	grant, err := a.work.Admit(ctx, system, cost)
	return grant.Release, err
}

// admitStaff admits a read about one system, or about all for "", by an actor that
// may monitor the platform. It uses done as admitRead does.
func (a *API) admitStaff(ctx context.Context, system domain.SystemID) (done func(), err error) {
	if err := actorOf(ctx).AuthorizeAnywhere(domain.ActionMonitor); err != nil {
		return nil, err
	}
	if system != "" {
		if _, err := domain.ParseSystemID(string(system)); err != nil {
			return nil, err
		}
	}
	return a.admitRead(ctx, system, costPage)
}

// pieceBytes is the size of one write of a large answer.
const pieceBytes = 64 << 10

// streamJSON returns an answer in JSON that write sends piece by piece. send returns
// false once the client is gone.
func streamJSON(write func(send func([]byte) bool)) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", "application/json")
		write(func(piece []byte) bool {
			_, err := ctx.BodyWriter().Write(piece)
			return err == nil
		})
	}}
}

// sendPieces sends b in pieces of pieceBytes. It returns false once the client is gone.
func sendPieces(b []byte, send func([]byte) bool) bool {
	for len(b) > 0 {
		n := min(len(b), pieceBytes)
		if !send(b[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}
