package rooms

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// Hub holds the rooms of a process. It is safe for concurrent use.
type Hub struct {
	source Source
	config Config
	logger *slog.Logger

	ctx     context.Context // ends when the hub is closed
	close   context.CancelFunc
	running sync.WaitGroup // the rooms' goroutines
	pool    pool

	deliveries atomic.Uint64
	latency    histogram

	mu    sync.Mutex
	rooms map[domain.SystemID]*room
}

// New makes a Hub that reads from source. The caller must call [Hub.Close].
func New(source Source, config Config, logger *slog.Logger) (*Hub, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	h := &Hub{source: source, config: config.withDefaults(), logger: logger, rooms: map[domain.SystemID]*room{}}
	h.pool.max, h.pool.logger = h.config.Readers, logger
	h.ctx, h.close = context.WithCancel(context.Background())
	return h, nil
}

// Close closes all rooms and waits for their goroutines. Subscriptions get nothing more.
// Closing twice is fine.
func (h *Hub) Close() {
	h.close()
	h.mu.Lock() // a concurrent enter is finished, and later ones see the closed context
	//lint:ignore SA2001 the lock orders Close after every enter that still opened a room
	h.mu.Unlock()
	h.pool.close()
	h.running.Wait()
}

// Options say where a subscription begins and which events it wants.
type Options struct {
	After    *domain.Position // resume after this position; nil begins at the newest event
	Snapshot bool             // begin with the state, and continue from its position; takes precedence over After
	Filter   domain.EventFilter
	Conflate bool     // see the package comment
	Encoding Encoding // of frames; nil is JSON
}

// Joined says where a subscription begins.
type Joined struct {
	Cursor domain.Cursor // events follow from here on
	// Recovered reports that After was given and that no event after it is missing. It is
	// false for a position that the log does not have; then the subscription begins at the
	// newest event.
	Recovered bool
	// Snapshot is the state at Cursor, if it was requested. The caller must Release it.
	Snapshot *snapshot.Snapshot
}

// Join subscribes a sink to a system. It opens the room, locates the place and loads the
// snapshot, as needed. The caller must call [Subscription.Start] next, and
// [Subscription.Leave] at the end. Errors are the source's, ctx's, or [ErrClosed].
func (h *Hub) Join(ctx context.Context, system domain.SystemID, o Options, sink Sink) (*Subscription, Joined, error) {
	r, err := h.enter(ctx, system)
	if err != nil {
		return nil, Joined{}, fmt.Errorf("rooms: join %s: %w", system, err)
	}
	c, joined, err := r.join(ctx, o, sink)
	if err != nil {
		h.exit(r)
		return nil, Joined{}, fmt.Errorf("rooms: join %s: %w", system, err)
	}
	return c, joined, nil
}

// enter makes the caller a member of the system's room and waits until the room is open.
func (h *Hub) enter(ctx context.Context, system domain.SystemID) (*room, error) {
	h.mu.Lock()
	if h.ctx.Err() != nil {
		h.mu.Unlock()
		return nil, ErrClosed
	}
	r := h.rooms[system]
	if r == nil {
		r = h.open(system)
	}
	r.members++
	if r.linger != nil {
		r.linger.Stop()
		r.linger = nil
	}
	h.mu.Unlock()

	select {
	case <-r.opened:
		if r.err != nil {
			return nil, r.err // the room is gone, and its count of members with it
		}
		return r, nil
	case <-ctx.Done():
		h.exit(r)
		return nil, ctx.Err()
	case <-h.ctx.Done():
		return nil, ErrClosed
	}
}

// open makes a room and starts its goroutine. The caller holds the hub's lock.
func (h *Hub) open(system domain.SystemID) *room {
	ctx, cancel := context.WithCancel(h.ctx)
	r := &room{hub: h, system: system, cancel: cancel, opened: make(chan struct{}), reads: map[readKey]*read{}}
	h.rooms[system] = r
	h.running.Go(func() {
		defer cancel()
		isolate.Loop(ctx, h.logger, where, func() { r.run(ctx) })
	})
	return r
}

// exit removes a member. The room stays open for Config.Linger after the last.
func (h *Hub) exit(r *room) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.members--; r.members > 0 || h.rooms[r.system] != r {
		return
	}
	if h.config.Linger < 0 {
		h.shut(r)
		return
	}
	r.linger = time.AfterFunc(h.config.Linger, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if r.members == 0 && h.rooms[r.system] == r {
			h.shut(r)
		}
	})
}

// shut closes a room. The caller holds the hub's lock.
func (h *Hub) shut(r *room) {
	delete(h.rooms, r.system)
	r.cancel()
}

// giveUp closes a room that could not be opened, with the error. It returns false for a
// room that is open.
func (h *Hub) giveUp(r *room, err error) bool {
	select {
	case <-r.opened:
		return false
	default:
	}
	h.mu.Lock()
	delete(h.rooms, r.system)
	h.mu.Unlock()
	r.err = err
	close(r.opened)
	return true
}

func (h *Hub) newBackoff() backoff.Backoff {
	return backoff.Backoff{First: h.config.RetryAfter, Max: h.config.RetryMax, StableAfter: h.config.RetryMax}
}
