package rooms

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// faulty is a source whose subscriptions a test can spoil.
type faulty struct {
	Source
	spoiled map[int64]func(*Hub) // what runs while a subscription begins, by its number
	hub     *Hub
	count   atomic.Int64
	feed    func([]domain.Event, error) // of the first subscription
}

func (f *faulty) Subscribe(_ context.Context, _ domain.SystemID, feed func([]domain.Event, error)) (domain.Cursor, func(), error) {
	n := f.count.Add(1)
	if n == 1 {
		f.feed = feed
	}
	if spoil := f.spoiled[n]; spoil != nil {
		spoil(f.hub)
	}
	return domain.Cursor{Position: domain.Position{Ms: 1}, Seq: 1}, func() {}, nil
}

// spoilEarly makes the room panic when it attaches a subscription.
func spoilEarly(h *Hub) {
	h.mu.Lock()
	r := h.rooms["clinica-sol"]
	h.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current.early = []*Encoded{nil}
}

// sink is a sink that ignores its frames.
type sink struct{}

func (sink) Deliver(Frame)           {}
func (sink) Restarted(domain.Cursor) {}

// If a room panics while it opens, waiting members get an error. The next member finds a
// room that works.
func TestRoomOpensAfterAPanic(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Hub){"in the room": spoilEarly, "in the source": func(*Hub) { panic("on purpose") }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				source := &faulty{spoiled: map[int64]func(*Hub){1: spoil}}
				hub := newFaultyHub(t, source)
				ctx, cancel := context.WithTimeout(t.Context(), hub.config.RetryMax)
				defer cancel()
				_, _, err := hub.Join(ctx, "clinica-sol", Options{}, sink{})
				var caught *isolate.PanicError
				if !errors.As(err, &caught) {
					t.Errorf("the first gets %v", err)
				}
				sub, _, err := hub.Join(t.Context(), "clinica-sol", Options{}, sink{})
				if err != nil {
					t.Fatal(err)
				}
				sub.Leave()
			})
		})
	}
}

// If an open room panics while it attaches another subscription, that subscription ends,
// and the room subscribes again.
func TestRoomGoesOnAfterAPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &faulty{spoiled: map[int64]func(*Hub){2: spoilEarly}}
		hub := newFaultyHub(t, source)
		sub, _, err := hub.Join(t.Context(), "clinica-sol", Options{}, sink{})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Leave()
		source.feed(nil, errors.New("broken on purpose"))
		ctx, cancel := context.WithTimeout(t.Context(), 4*hub.config.RetryMax)
		defer cancel()
		<-ctx.Done() // the bubble's clock
		if n := source.count.Load(); n != 3 {
			t.Errorf("%d subscriptions", n)
		}
		other, _, err := hub.Join(t.Context(), "clinica-sol", Options{}, sink{})
		if err != nil {
			t.Fatal(err)
		}
		other.Leave()
	})
}

func newFaultyHub(t *testing.T, source *faulty) *Hub {
	hub, err := New(source, Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	source.hub = hub
	return hub
}
