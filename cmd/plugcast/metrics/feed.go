package metrics

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// Nodes lists what every process last said of itself, by name: what [Sampler.Own]
// returned there.
type Nodes interface {
	Nodes(ctx context.Context) (map[string]json.RawMessage, error)
}

// Feed makes the frames of the admin dashboard. It is safe for concurrent use.
type Feed struct {
	nodes  Nodes
	logger *slog.Logger

	mu       sync.Mutex
	watchers map[int]func(frame []byte)
	next     int
}

// NewFeed makes a Feed.
func NewFeed(nodes Nodes, logger *slog.Logger) *Feed {
	return &Feed{nodes: nodes, logger: logger, watchers: map[int]func([]byte){}}
}

// Run makes a frame once a second, if anybody watches here, until ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	backoff.Every(ctx, time.Second, func(now time.Time) { f.feed(ctx, now) })
	return nil
}

// Subscribe gives fn a metrics frame once a second until cancel is called. fn
// must not block.
func (f *Feed) Subscribe(fn func(frame []byte)) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.next
	f.next++
	f.watchers[id] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, id)
	}
}

// feed makes one frame for everybody who watches here.
func (f *Feed) feed(ctx context.Context, now time.Time) {
	f.mu.Lock()
	watchers := slices.Collect(maps.Values(f.watchers))
	f.mu.Unlock()
	if len(watchers) == 0 {
		return
	}
	registry, err := f.nodes.Nodes(ctx)
	if err != nil {
		f.logger.Debug("metrics: nodes", "error", err)
		return
	}
	frame, err := json.Marshal(map[string]any{"event": "metrics", "data": summarise(decodeNodes(registry), now)})
	if err != nil {
		f.logger.Error("metrics: the figures cannot be written", "error", err)
		return
	}
	for _, watch := range watchers {
		isolate.Do(f.logger, "metrics", func() { watch(frame) })
	}
}
