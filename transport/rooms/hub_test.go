package rooms_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

const sol = clienttest.Sol

// testHub is a hub on a source in memory.
type testHub struct {
	*rooms.Hub
	t      *testing.T
	source *clienttest.Source
}

func newTestHub(t *testing.T, config rooms.Config) *testHub {
	source := clienttest.NewSource()
	return &testHub{Hub: clienttest.NewHub(t, source, config), t: t, source: source}
}

// socket is a sink that sends its frames at once, or when the test lets it.
type socket struct {
	sub    *rooms.Subscription
	joined rooms.Joined

	mu        sync.Mutex
	held      bool
	waiting   bool // a frame waits for the socket to be let
	events    []domain.Event
	frames    int
	largest   int
	restarted []domain.Cursor
}

func (s *socket) Deliver(f rooms.Frame) {
	var events []domain.Event
	b := f.Bytes
	if b[0] != '[' {
		b = slices.Concat([]byte("["), b, []byte("]"))
	}
	if err := json.Unmarshal(b, &events); err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, events...)
	s.frames++
	s.largest = max(s.largest, len(f.Bytes))
	if s.held {
		s.waiting = true
		return
	}
	go s.sub.Sent()
}

func (s *socket) Restarted(from domain.Cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarted = append(s.restarted, from)
}

func (s *socket) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
}

func (s *socket) release() {
	s.mu.Lock()
	waiting := s.waiting
	s.held, s.waiting = false, false
	s.mu.Unlock()
	if waiting {
		s.sub.Sent()
	}
}

func (s *socket) got() []domain.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (h *testHub) join(o rooms.Options) *socket {
	h.t.Helper()
	s := &socket{}
	var err error
	if s.sub, s.joined, err = h.Join(context.Background(), sol, o, s); err != nil {
		h.t.Fatal(err)
	}
	s.sub.Start()
	return s
}

// TestRandomReaders lets readers join at random places, stop and continue, while events
// come and subscriptions break.
func TestRandomReaders(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { runRandomReaders(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func runRandomReaders(t *testing.T, random *rand.Rand) {
	h := newTestHub(t, rooms.Config{TailBytes: 1 + random.IntN(20_000), FrameBytes: 2000, PageEvents: 1 + random.IntN(50), Readers: 2})
	h.source.Append(sol, clienttest.Updates(random.IntN(200))...)
	var sockets []*socket
	for range 300 {
		switch random.IntN(8) {
		case 0:
			var o rooms.Options
			if events := h.source.Events(sol); len(events) > 0 && random.IntN(3) > 0 {
				o.After = &events[random.IntN(len(events))].Position
			}
			o.Snapshot = random.IntN(3) == 0
			sockets = append(sockets, h.join(o))
		case 1:
			if len(sockets) > 0 {
				sockets[random.IntN(len(sockets))].hold()
			}
		case 2:
			if len(sockets) > 0 {
				sockets[random.IntN(len(sockets))].release()
			}
		case 3:
			if random.IntN(5) == 0 {
				h.source.Break(sol)
			}
		case 4:
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
		default:
			h.source.Append(sol, clienttest.Updates(random.IntN(12))...)
		}
	}
	for _, s := range sockets {
		s.release()
	}
	time.Sleep(time.Minute)
	events := h.source.Events(sol)
	for _, s := range sockets {
		clienttest.RequireEvents(t, s.got(), events[s.joined.Cursor.Seq:])
		if passed := s.sub.Progress(); passed != events[len(events)-1].Cursor() {
			t.Fatalf("passed %s of %s", passed, events[len(events)-1].Cursor())
		}
		if s.largest > 2000 {
			t.Fatalf("a frame of %d bytes", s.largest)
		}
	}
}

func TestSnapshotThenEventsBehindIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{TailBytes: 1})
		h.source.Append(sol, clienttest.Updates(20)...)
		s := h.join(rooms.Options{Snapshot: true})
		if s.joined.Snapshot == nil || s.joined.Snapshot.Cursor.Seq != 20 || s.joined.Cursor.Seq != 20 || s.joined.Recovered {
			t.Fatalf("joined %+v", s.joined)
		}
		h.source.Append(sol, clienttest.Updates(5)...)
		synctest.Wait()
		clienttest.RequireEvents(t, s.got(), h.source.Events(sol)[20:])

		// With a place as well, the reader is told whether anything is between.
		events := h.source.Events(sol)
		if s := h.join(rooms.Options{Snapshot: true, After: &events[24].Position}); !s.joined.Recovered {
			t.Error("nothing is between the place and the snapshot")
		}
		if s := h.join(rooms.Options{Snapshot: true, After: &events[23].Position}); s.joined.Recovered {
			t.Error("an event is between the place and the snapshot")
		}
	})
}

func TestResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{TailBytes: 2000})
		events := h.source.Append(sol, clienttest.Updates(40)...)
		first := h.join(rooms.Options{After: &domain.Position{}})
		if !first.joined.Recovered || first.joined.Cursor != (domain.Cursor{}) {
			t.Errorf("from the first event ever: %+v", first.joined)
		}
		between := events[9].Position
		between.N++ // no event has it, but the log went past it
		middle := h.join(rooms.Options{After: &between})
		if !middle.joined.Recovered || middle.joined.Cursor != events[9].Cursor() {
			t.Errorf("from between two events: %+v", middle.joined)
		}
		foreign := h.join(rooms.Options{After: &domain.Position{Ms: 1 << 60}})
		if foreign.joined.Recovered || foreign.joined.Cursor != events[39].Cursor() {
			t.Errorf("from a position of another log: %+v", foreign.joined)
		}
		now := h.join(rooms.Options{})
		if now.joined.Recovered || now.joined.Cursor != events[39].Cursor() {
			t.Errorf("from now: %+v", now.joined)
		}
		h.source.Append(sol, clienttest.Updates(3)...)
		synctest.Wait()
		events = h.source.Events(sol)
		clienttest.RequireEvents(t, first.got(), events)
		clienttest.RequireEvents(t, middle.got(), events[10:])
		clienttest.RequireEvents(t, foreign.got(), events[40:])
		clienttest.RequireEvents(t, now.got(), events[40:])
	})
}

func TestNothingBeforeStartNorAfterLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{})
		s := &socket{}
		var err error
		if s.sub, _, err = h.Join(t.Context(), sol, rooms.Options{}, s); err != nil {
			t.Fatal(err)
		}
		h.source.Append(sol, clienttest.Updates(3)...)
		synctest.Wait()
		if n := len(s.got()); n > 0 {
			t.Fatalf("%d events before the start", n)
		}
		s.sub.Start()
		synctest.Wait()
		clienttest.RequireEvents(t, s.got(), h.source.Events(sol))
		s.sub.Leave()
		s.sub.Leave()
		h.source.Append(sol, clienttest.Updates(3)...)
		synctest.Wait()
		if n := len(s.got()); n != 3 {
			t.Fatalf("%d events after leaving", n-3)
		}
	})
}

// TestStoppedReader has a reader that takes one frame and then nothing for a long time.
func TestStoppedReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{TailBytes: 10_000})
		s := h.join(rooms.Options{})
		s.hold()
		for range 100 {
			h.source.Append(sol, clienttest.Updates(10)...)
			time.Sleep(time.Second)
		}
		if s.frames != 1 || h.source.Pages() != 0 {
			t.Fatalf("a stopped reader got %d frames and %d pages were read for it", s.frames, h.source.Pages())
		}
		s.release()
		synctest.Wait()
		clienttest.RequireEvents(t, s.got(), h.source.Events(sol))
	})
}

func TestReadersAtOnePlaceShareItsPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{TailBytes: 1, Readers: 3})
		h.source.Append(sol, clienttest.Updates(100)...)
		release := h.source.HoldPages()
		var sockets []*socket
		for range 50 {
			sockets = append(sockets, h.join(rooms.Options{After: &domain.Position{}}))
		}
		synctest.Wait()
		release()
		synctest.Wait()
		for _, s := range sockets {
			clienttest.RequireEvents(t, s.got(), h.source.Events(sol))
		}
		if n := h.source.Pages(); n != 1 {
			t.Errorf("50 readers of the same page read %d", n)
		}
	})
}

func TestTroubledSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{TailBytes: 1})
		h.source.Append(sol, clienttest.Updates(10)...)
		h.source.Fail(true)
		if _, _, err := h.Join(t.Context(), sol, rooms.Options{}, &socket{}); !errors.Is(err, clienttest.ErrBroken) {
			t.Fatalf("joined a room that cannot be opened: %v", err)
		}
		h.source.Fail(false)
		live, behind := h.join(rooms.Options{}), h.join(rooms.Options{After: &domain.Position{}})
		behind.hold()
		synctest.Wait()

		h.source.Fail(true)
		h.source.Break(sol)
		h.source.Append(sol, clienttest.Updates(10)...)
		behind.release()
		time.Sleep(10 * time.Minute)
		if _, _, err := h.Join(t.Context(), sol, rooms.Options{Snapshot: true}, &socket{}); !errors.Is(err, clienttest.ErrBroken) {
			t.Fatalf("joined without the snapshot: %v", err)
		}
		h.source.Fail(false)
		time.Sleep(10 * time.Second) // more than the longest pause
		clienttest.RequireEvents(t, live.got(), h.source.Events(sol)[10:])
		clienttest.RequireEvents(t, behind.got(), h.source.Events(sol))
	})
}

// TestLogThatForgot has a Redis that came back without its newest events.
func TestLogThatForgot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{})
		h.source.Append(sol, clienttest.Updates(10)...)
		s, slow := h.join(rooms.Options{}), h.join(rooms.Options{After: &domain.Position{}})
		h.source.Append(sol, clienttest.Updates(2)...)
		synctest.Wait()
		slow.hold()
		h.source.Append(sol, clienttest.Updates(1)...)
		h.source.Forget(sol, 7)
		time.Sleep(time.Minute)
		fresh := h.source.Append(sol, clienttest.Updates(3)...)
		slow.release()
		time.Sleep(time.Minute)
		for _, s := range []*socket{s, slow} {
			if got := s.got(); len(got) < 3 {
				t.Fatalf("%d events", len(got))
			} else {
				clienttest.RequireEvents(t, got[len(got)-len(fresh):], fresh)
			}
		}
		if len(s.restarted) != 1 || s.restarted[0].Seq != 7 {
			t.Errorf("the reader that the log was behind was restarted at %v", s.restarted)
		}
		if len(slow.restarted) != 0 {
			t.Errorf("the log had gone past the slow reader, which was restarted at %v", slow.restarted)
		}
	})
}

// TestRecountedSequence has a sequence in which an event had been missed, so that all seqs
// were too low.
func TestRecountedSequence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{TailBytes: 1})
		h.source.Append(sol, clienttest.Updates(10)...)
		live, behind := h.join(rooms.Options{}), h.join(rooms.Options{After: &domain.Position{}})
		behind.hold()
		h.source.Append(sol, clienttest.Updates(4)...)
		synctest.Wait()
		h.source.Recount(sol)
		time.Sleep(time.Minute)
		h.source.Append(sol, clienttest.Updates(4)...)
		behind.release()
		time.Sleep(time.Minute)
		for _, s := range []*socket{live, behind} {
			got := s.got()
			if last := got[len(got)-1]; last.Seq != 19 {
				t.Errorf("the last seq is %d", last.Seq)
			}
			for i := 1; i < len(got); i++ {
				if !got[i].Position.After(got[i-1].Position) {
					t.Fatalf("%s comes after %s", got[i].Cursor(), got[i-1].Cursor())
				}
			}
		}
		if len(live.got()) != 8 || len(behind.got()) != 18 {
			t.Errorf("%d and %d events, not 8 and 18", len(live.got()), len(behind.got()))
		}
	})
}

func TestRoomStaysOpenForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{Linger: time.Minute})
		first := h.join(rooms.Options{})
		first.sub.Leave()
		time.Sleep(59 * time.Second)
		second := h.join(rooms.Options{})
		time.Sleep(10 * time.Minute)
		if n := h.source.Subscribers(sol); n != 1 {
			t.Fatalf("%d subscriptions with a member", n)
		}
		second.sub.Leave()
		time.Sleep(59 * time.Second)
		if n := h.source.Subscribers(sol); n != 1 {
			t.Fatalf("%d subscriptions within the minute", n)
		}
		time.Sleep(2 * time.Second)
		if n, stats := h.source.Subscribers(sol), h.Stats(1); n != 0 || stats.Rooms != 0 {
			t.Fatalf("%d subscriptions and %d rooms after the minute", n, stats.Rooms)
		}
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{TailBytes: 1})
		h.source.Append(sol, clienttest.Updates(5)...)
		h.source.HoldPages() // for ever
		s := h.join(rooms.Options{After: &domain.Position{}})
		synctest.Wait()
		h.Close()
		h.Close()
		if n := h.source.Subscribers(sol); n != 0 {
			t.Errorf("%d subscriptions of a closed hub", n)
		}
		if _, _, err := h.Join(t.Context(), sol, rooms.Options{}, s); !errors.Is(err, rooms.ErrClosed) {
			t.Errorf("joined a closed hub: %v", err)
		}
		s.sub.Leave()
	})
}

func TestStats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{})
		h.join(rooms.Options{})
		h.join(rooms.Options{})
		other := &socket{}
		var err error
		if other.sub, _, err = h.Join(t.Context(), "centro-luna", rooms.Options{}, other); err != nil {
			t.Fatal(err)
		}
		other.sub.Start()
		h.source.Append(sol, clienttest.Updates(3)...)
		h.source.Append("centro-luna", clienttest.Updates(1)...)
		synctest.Wait()
		stats := h.Stats(1)
		if stats.Rooms != 2 || stats.Subscriptions != 3 || stats.Deliveries != 7 || stats.Latency.Count() != 7 {
			t.Errorf("stats %d rooms, %d subscriptions, %d deliveries, %d timed", stats.Rooms, stats.Subscriptions, stats.Deliveries,
				stats.Latency.Count())
		}
		if want := (rooms.SystemStats{SystemID: sol, Subscriptions: 2, Deliveries: 6}); len(stats.Systems) != 1 || stats.Systems[0] != want {
			t.Errorf("top systems %+v", stats.Systems)
		}
	})
}

// TestFilteredReaderStaysLive holds everything back from a reader for longer
// than the tail reaches: it has passed that, and needs no pages.
func TestFilteredReaderStaysLive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestHub(t, rooms.Config{TailBytes: 3000})
		s := h.join(rooms.Options{Filter: domain.EventFilter{Devices: []domain.DeviceID{"plug-9"}}})
		for range 50 {
			h.source.Append(sol, clienttest.Updates(2)...)
		}
		wanted := h.source.Append(sol, clienttest.Update("plug-9", 1))
		synctest.Wait()
		clienttest.RequireEvents(t, s.got(), wanted)
		if n := h.source.Pages(); n != 0 {
			t.Errorf("%d pages were read", n)
		}
	})
}
