package rooms_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// badSink panics with each frame.
type badSink struct{ broken chan struct{} }

func (s *badSink) Deliver(rooms.Frame)     { panic("a bad sink") }
func (s *badSink) Restarted(domain.Cursor) { panic("a bad sink") }
func (s *badSink) Panicked()               { close(s.broken) }

// badEncoding panics on its first use.
type badEncoding struct{ used *bool }

func (e badEncoding) Encode(events []*rooms.Encoded) []byte {
	if !*e.used {
		*e.used = true
		panic("a bad encoding")
	}
	return events[0].Envelope
}

// A sink that panics is told, and the other readers of its room are not affected.
func TestSinkPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub := newTestHub(t, rooms.Config{})
		before := isolate.Panics()["rooms"]
		bad := &badSink{make(chan struct{})}
		sub, _, err := hub.Join(context.Background(), sol, rooms.Options{}, bad)
		if err != nil {
			t.Fatal(err)
		}
		sub.Start()
		good := hub.join(rooms.Options{})
		hub.source.Append(sol, clienttest.Updates(3)...)
		<-bad.broken
		synctest.Wait()
		if n := len(good.got()); n != 3 {
			t.Errorf("the other reader got %d events", n)
		}
		sub.Leave()
		if isolate.Panics()["rooms"] == before {
			t.Error("the panic is not counted")
		}
	})
}

// An encoding that panics, under the room's lock, breaks the sinks that use it and nothing
// else.
func TestEncodingPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub := newTestHub(t, rooms.Config{})
		good := hub.join(rooms.Options{})
		used := false
		bad := &badSink{make(chan struct{})}
		sub, _, err := hub.Join(context.Background(), sol, rooms.Options{Encoding: badEncoding{&used}}, bad)
		if err != nil {
			t.Fatal(err)
		}
		sub.Start()
		for range 5 {
			hub.source.Append(sol, clienttest.Updates(1)...)
		}
		synctest.Wait()
		if n := len(good.got()); n != 5 || !used {
			t.Errorf("the other reader got %d events; the encoding was used: %v", n, used)
		}
		<-bad.broken
		sub.Leave()
	})
}
