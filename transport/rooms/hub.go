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

// New makes a Hub that reads from source. [Hub.Close] ends it.
func New(source Source, config Config, logger *slog.Logger) (*Hub, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	h := &Hub{source: source, config: config.withDefaults(), logger: logger, rooms: map[domain.SystemID]*room{}}
	h.pool.most, h.pool.logger = h.config.Readers, logger
	h.ctx, h.close = context.WithCancel(context.Background())
	return h, nil
}

// Close ends all rooms and waits for what they do. Cursors get nothing more.
// Closing twice is fine.
func (h *Hub) Close() {
	h.close()
	h.mu.Lock() // no room is opened from here on
	//lint:ignore SA2001 whoever was opening one while the hub was closed is done
	h.mu.Unlock()
	h.pool.close()
	h.running.Wait()
}

// Options say where a reader begins and what it wants.
type Options struct {
	After    *domain.Position // resume behind this position; nil: from now on
	Snapshot bool             // begin with the state, and go on from its position; wins over After
	Filter   domain.EventFilter
	Conflate bool     // see the package's comment
	Encoding Encoding // of frames; nil is JSON
}

// Joined says where a reader begins.
type Joined struct {
	Cursor domain.Cursor // events follow from here
	// Recovered says that After was given and that no event is missing behind
	// it. It is false for a position that is not of this log: then the reader
	// goes on from now.
	Recovered bool
	// Snapshot is the state as of Cursor, when it was asked for. The caller
	// must Release it.
	Snapshot *snapshot.Snapshot
}

// Join makes a reader of a system, who must call [Subscription.Start] next, and
// [Subscription.Leave] at the end. It opens the room, looks up the place and loads the
// snapshot, as far as needed. Its errors are the source's, ctx's, or
// [ErrClosed].
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

// enter makes the caller a member of the system's room and waits for it to be
// open.
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
			return nil, r.err // the room is gone, and so is its count of members
		}
		return r, nil
	case <-ctx.Done():
		h.exit(r)
		return nil, ctx.Err()
	case <-h.ctx.Done():
		return nil, ErrClosed
	}
}

// open makes a room. The caller holds the hub's lock.
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

// exit takes a member out. The room stays open for a while after the last.
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

// shut ends a room. The caller holds the hub's lock.
func (h *Hub) shut(r *room) {
	delete(h.rooms, r.system)
	r.cancel()
}

// giveUp ends a room that never opened, with the reason why. It reports whether
// it did.
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
	return backoff.Backoff{First: h.config.RetryAfter, Max: h.config.RetryMost, StableAfter: h.config.RetryMost}
}
