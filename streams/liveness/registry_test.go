package liveness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

func TestMain(m *testing.M) { redistest.Main(m) }

const system domain.SystemID = "clinica-sol"

// bundle is a log, registries on it, and the states that the log folds to.
type bundle struct {
	t   *testing.T
	url string
	log *streams.Log
}

func newBundle(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{t: t, url: redistest.URL(t)}
	b.log = b.open()
	return b
}

func (b *bundle) open() *streams.Log {
	b.t.Helper()
	log, err := streams.Open(b.t.Context(), streams.Config{URL: b.url, Partitions: 2})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = log.Close() })
	return log
}

// registry returns a registry that runs until the test ends.
func (b *bundle) registry(node string, lost func(domain.DeviceRef, string)) *Registry {
	registry := New(b.log, node, slog.New(slog.NewTextHandler(b.t.Output(), nil)))
	b.run(func(ctx context.Context) { _ = registry.Run(ctx, lost) })
	return registry
}

// run runs do until the test ends or stop is called.
func (b *bundle) run(do func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { do(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	b.t.Cleanup(stop)
	return stop
}

func (b *bundle) watch(registry *Registry) (stop func()) {
	return b.run(func(ctx context.Context) { registry.Watch(ctx, b.log.Partition(system), b) })
}

// DevicesAt implements Devices: the fold of the whole log.
func (b *bundle) DevicesAt(
	ctx context.Context, system domain.SystemID, _ []domain.DeviceID, _ domain.Position,
) (map[domain.DeviceID]*domain.Device, error) {
	s := domain.NewState(system)
	events, err := b.events(ctx)
	if err != nil {
		return nil, err
	}
	for i := range events {
		if events[i].SystemID == system {
			_, _ = s.Apply(&events[i])
		}
	}
	return s.Devices, nil
}

func (b *bundle) events(ctx context.Context) (all []domain.Event, err error) {
	for at := (domain.Position{}); ; {
		events, err := b.log.Read(ctx, b.log.Partition(system), at, 1000)
		if err != nil || len(events) == 0 {
			return all, err
		}
		all = append(all, events...)
		at = all[len(all)-1].Position
	}
}

// notices returns the device-offline-status events of the log, as short texts.
func (b *bundle) notices() []string {
	b.t.Helper()
	events, err := b.events(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	var notices []string
	for i := range events {
		if data, _ := events[i].Decode(); data != nil {
			if s, ok := data.(domain.DeviceOfflineStatus); ok {
				relay, known := s.RelayOn.Get()
				text := fmt.Sprintf("%s online=%t %s", s.DeviceID, s.Online, s.Reason)
				if known {
					text += fmt.Sprintf(" relay=%t", relay)
				}
				notices = append(notices, text)
			}
		}
	}
	return notices
}

func (b *bundle) publish(id domain.DeviceID, online, relayOn bool) {
	b.t.Helper()
	e, err := domain.NewEvent(system, domain.DeviceUpdate{
		DeviceID: id, Online: domain.Some(online), RelayOn: domain.Some(relayOn),
	}, domain.Cause{Actor: "test"})
	if err == nil {
		_, err = b.log.Append(b.t.Context(), []domain.Event{e}, domain.AppendOptions{})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) expect(want ...string) {
	b.t.Helper()
	b.eventually("notices", func() bool { return len(b.notices()) >= len(want) })
	if diff := cmp.Diff(want, b.notices()); diff != "" {
		b.t.Fatalf("notices (-want +got):\n%s", diff)
	}
}

func (b *bundle) eventually(what string, holds func() bool) {
	b.t.Helper()
	testpeer.Eventually(b.t, what, holds, func() string { return fmt.Sprintf("notices: %q", b.notices()) })
}

// settle waits until the owner has dealt with every report before it.
func (b *bundle) settle(registry *Registry) {
	b.t.Helper()
	marker := domain.DeviceRef{System: system, Device: domain.DeviceID(fmt.Sprintf("marker-%d", time.Now().UnixNano()))}
	b.publish(marker.Device, true, false)
	registry.Open(marker, "m", 0)
	b.eventually("the marker", func() bool {
		return slices.ContainsFunc(b.notices(), func(n string) bool { return strings.HasPrefix(n, string(marker.Device)) })
	})
}

func plug(n int) domain.DeviceRef {
	return domain.DeviceRef{System: system, Device: domain.DeviceID(fmt.Sprintf("plug-%d", n))}
}

func TestSilenceAndReturnAreReportedOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	b.publish("plug-1", true, true)
	b.watch(registry)
	registry.Open(plug(1), "s1", time.Hour)
	registry.Close(plug(1), "s1", 0, domain.ReasonSocketClosed)
	b.expect("plug-1 online=false socket-closed relay=true")
	b.settle(registry)
	registry.Open(plug(1), "s2", time.Hour)
	b.eventually("the return", func() bool { return slices.Contains(b.notices(), "plug-1 online=true back relay=true") })
	for range 5 {
		registry.Alive(plug(1), "s2", time.Hour)
	}
	b.settle(registry)
	var about []string
	for _, n := range b.notices() {
		if strings.HasPrefix(n, "plug-1 ") {
			about = append(about, n)
		}
	}
	if len(about) != 2 {
		t.Errorf("want one notice of silence and one of return, not %q", about)
	}
}

func TestNothingIsReportedWithoutReason(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	b.watch(registry)
	for n := range 5 {
		b.publish(plug(n).Device, true, true)
	}
	registry.Open(plug(0), "s", time.Hour) // lives
	registry.Open(plug(1), "s", time.Hour) // we close its socket
	registry.Forget(plug(1), "s")
	registry.Open(plug(2), "s", time.Hour) // back within the grace
	registry.Close(plug(2), "s", time.Minute, domain.ReasonSocketClosed)
	registry.Open(plug(2), "t", time.Hour)
	registry.Open(plug(3), "s", time.Hour) // a newer socket has it
	registry.Open(plug(3), "t", time.Hour)
	registry.Close(plug(3), "s", 0, domain.ReasonSocketClosed)
	registry.Report(plug(4), true) // known to be online
	registry.Open(domain.DeviceRef{System: system, Device: "never-published"}, "s", 0)
	b.settle(registry)
	for _, n := range b.notices() {
		if !strings.HasPrefix(n, "marker") {
			t.Errorf("reported for no reason: %s", n)
		}
	}
}

func TestReportsDecide(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	b.publish("plug-1", true, false)
	b.publish("plug-2", false, false) // known to be offline
	b.watch(registry)
	registry.Report(plug(1), false)
	registry.Report(plug(2), false)
	b.expect("plug-1 online=false reported relay=false")
	registry.Report(plug(1), false)
	b.settle(registry)
	registry.Report(plug(1), true)
	b.eventually("the first return", func() bool { return slices.Contains(b.notices(), "plug-1 online=true back relay=false") })
	registry.Report(plug(2), true)
	b.eventually("the second return", func() bool { return slices.Contains(b.notices(), "plug-2 online=true back relay=false") })
	b.settle(registry)
	notices := slices.DeleteFunc(b.notices(), func(n string) bool { return strings.HasPrefix(n, "marker") })
	if len(notices) != 3 {
		t.Errorf("want three notices, not %q", notices)
	}
}

// A registry that lost its content, as with a wiped Redis, must not leave a device offline for
// ever.
func TestReturnAfterTheRegistryWasLost(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	b.publish("plug-1", false, true)
	b.watch(registry)
	registry.Open(plug(1), "s", time.Hour)
	registry.Report(plug(1), true) // as a holder reports a device that is offline in the log
	b.expect("plug-1 online=true back relay=true")
}

// wipe empties the registry, as a wiped Redis does, and leaves the log.
func (b *bundle) wipe(registry *Registry) {
	b.t.Helper()
	if err := b.log.Client().Del(b.t.Context(), registry.keys(b.log.Partition(system))...).Err(); err != nil {
		b.t.Fatal(err)
	}
}

// A socket that closes before its device was heard again must not leave the device online for
// ever.
func TestCloseAfterTheRegistryWasLost(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	b.publish("plug-1", true, true)
	b.watch(registry)
	registry.Open(plug(1), "s", time.Hour)
	b.settle(registry)
	b.wipe(registry)
	registry.Close(plug(1), "s", 0, domain.ReasonSocketClosed)
	b.eventually("the notice", func() bool { return slices.Contains(b.notices(), "plug-1 online=false socket-closed relay=true") })
}

// A silence that no device could have ended, because no process could write or sweep, does not
// count: devices are heard first.
func TestNoSilenceAfterAGapInSweeps(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	b.publish("plug-1", true, true)
	partition := b.log.Partition(system)
	keys := registry.keys(partition)
	watched := func(fields ...any) {
		if err := b.log.Client().HSet(t.Context(), keys[4], fields...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	silent := func() bool { return len(b.pending(registry)) > 0 }
	registry.Open(plug(1), "s", 0) // its time ends during the gap
	b.eventually("it to be in the registry", func() bool { return b.held(registry, 1) })
	watched("at", time.Now().Add(-time.Minute).UnixMilli())
	for range 2 {
		if silent() {
			t.Fatal("found silent before it could be heard")
		}
	}
	registry.Alive(plug(1), "s", time.Hour)
	b.eventually("it to be heard", func() bool {
		return b.log.Client().ZScore(t.Context(), keys[0], memberOf(plug(1))).Val() > float64(time.Now().UnixMilli())
	})
	watched("until", 0)
	if silent() {
		t.Error("found silent although it was heard")
	}
	registry.Close(plug(1), "s", 0, domain.ReasonSocketClosed)
	b.eventually("a real silence to be found", silent)
}

func TestDeadHolderIsNoticedByTime(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	b.publish("plug-1", true, true)
	b.watch(registry)
	registry.Open(plug(1), "s", 300*time.Millisecond) // no further report follows
	b.expect("plug-1 online=false heartbeat-missed relay=true")
	registry.Alive(plug(1), "s", time.Hour) // the holder was frozen and continues
	b.expect("plug-1 online=false heartbeat-missed relay=true", "plug-1 online=true back relay=true")
}

func TestAwaitedDevices(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	for n := range 4 {
		b.publish(plug(n).Device, true, true)
	}
	b.publish("plug-4", false, true)
	b.watch(registry)
	registry.Open(plug(0), "s", time.Hour) // lives
	registry.Open(plug(1), "s", time.Hour) // comes in time
	registry.Forget(plug(1), "s")
	b.settle(registry)
	for n := range 5 {
		registry.Await(plug(n), 500*time.Millisecond)
	}
	registry.Await(plug(3), time.Hour) // before the first was written: the later time applies
	registry.Open(plug(1), "t", time.Hour)
	b.eventually("one to be missed", func() bool {
		return slices.Contains(b.notices(), "plug-2 online=false heartbeat-missed relay=true")
	})
	registry.Await(plug(2), 0) // it is already silent
	b.settle(registry)
	notices := slices.DeleteFunc(b.notices(), func(n string) bool { return strings.HasPrefix(n, "marker") })
	if len(notices) != 1 {
		t.Errorf("want one notice, not %q", notices)
	}
}

func TestReplacedSessionLearnsOfIt(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	lost := make(chan string, 10)
	old := b.registry("a", func(d domain.DeviceRef, session string) { lost <- string(d.Device) + " " + session })
	other := b.registry("b", func(_ domain.DeviceRef, session string) {
		t.Errorf("session %s lost the device that it holds", session)
	})
	old.Open(plug(1), "s1", time.Hour)
	b.eventually("the first to hold it", func() bool { return b.held(old, 1) })
	other.Open(plug(1), "s2", time.Hour)
	for {
		old.Alive(plug(1), "s1", time.Hour)
		other.Alive(plug(1), "s2", time.Hour)
		select {
		case l := <-lost:
			if l != "plug-1 s1" {
				t.Errorf("lost %q", l)
			}
			return
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the old session was not told")
		}
	}
}

func (b *bundle) held(registry *Registry, n int) bool {
	held, err := registry.Held(b.t.Context(), plug(n))
	if err != nil {
		b.t.Fatal(err)
	}
	return held
}

func TestHeld(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	if b.held(registry, 1) {
		t.Error("no session holds it yet")
	}
	registry.Open(plug(1), "s", time.Hour)
	b.eventually("it to be held", func() bool { return b.held(registry, 1) })
	registry.Close(plug(1), "s", time.Hour, domain.ReasonSocketClosed)
	b.eventually("it to be let go", func() bool { return !b.held(registry, 1) })
}

// failing is a Devices that fails now and then, so that owners die half-way.
type failing struct {
	*bundle
	mu sync.Mutex
	n  int
}

func (f *failing) DevicesAt(
	ctx context.Context, system domain.SystemID, ids []domain.DeviceID, at domain.Position,
) (map[domain.DeviceID]*domain.Device, error) {
	f.mu.Lock()
	f.n++
	n := f.n
	f.mu.Unlock()
	if n%3 == 1 {
		return nil, errors.New("the database is away")
	}
	return f.bundle.DevicesAt(ctx, system, ids, at)
}

// A whole centre loses power and comes back, while owners come and go and two work at the same
// time: there is one notice each, no more.
func TestPowerCutUnderChangingOwners(t *testing.T) {
	t.Parallel()
	const devices = 1500
	b := newBundle(t)
	registry := b.registry("a", nil)
	states := &failing{bundle: b}
	partition := b.log.Partition(system)
	for n := range devices {
		b.publish(plug(n).Device, true, n%2 == 0)
		registry.Open(plug(n), "s", time.Hour)
	}
	owner := func() func() { return b.run(func(ctx context.Context) { registry.Watch(ctx, partition, states) }) }
	first, second := owner(), owner()
	for n := range devices {
		registry.Close(plug(n), "s", 0, domain.ReasonSocketClosed)
	}
	b.eventually("some notices", func() bool { return len(b.notices()) > 100 })
	first()
	third := owner()
	b.eventually("all to be silent", func() bool { return len(b.notices()) >= devices })
	for n := range devices {
		registry.Open(plug(n), "t", time.Hour)
	}
	b.eventually("some to be back", func() bool { return len(b.notices()) > devices+100 })
	second()
	third()
	owner()
	b.eventually("all to be back", func() bool { return len(b.notices()) >= 2*devices })
	b.settle(registry)
	count := map[string]int{}
	for _, n := range b.notices() {
		if strings.HasPrefix(n, "plug-") {
			count[n]++
		}
	}
	if len(count) != 2*devices {
		t.Errorf("%d different notices, want %d", len(count), 2*devices)
	}
	for n, times := range count {
		if times != 1 {
			t.Errorf("%s: %d times", n, times)
		}
	}
}

func TestChangesThatWaitAreFew(t *testing.T) {
	t.Parallel()
	verbs := []verb{verbOpen, verbAlive, verbClose, verbForget, verbGone, verbBack}
	for a := range verbs {
		for z := range verbs {
			var waiting []change
			for n := range 100 {
				waiting = merge(waiting, change{verb: verbs[(n*a+z)%len(verbs)], session: fmt.Sprint(n % 7)})
			}
			if len(waiting) > maxWaiting {
				t.Errorf("%d changes wait", len(waiting))
			}
		}
	}
	waiting := merge(merge(nil, change{verb: verbOpen, session: "s"}), change{verb: verbClose, session: "s"})
	if len(waiting) != 2 {
		t.Errorf("want an open and a close for a short-lived socket, not %v", waiting)
	}
}

// stale is an old state of the devices: what an owner has just read when another owner writes.
type stale map[domain.DeviceID]*domain.Device

func (s stale) DevicesAt(context.Context, domain.SystemID, []domain.DeviceID, domain.Position) (map[domain.DeviceID]*domain.Device, error) {
	return s, nil
}

func TestTwoOwnersOnTheSameSilence(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	b.publish("plug-1", true, true)
	before, err := b.DevicesAt(t.Context(), system, nil, domain.Position{})
	if err != nil {
		t.Fatal(err)
	}
	partition := b.log.Partition(system)
	both := func(want ...string) {
		var pending []silence
		b.eventually("something to write", func() bool {
			pending = b.pending(registry)
			return len(pending) > 0
		})
		for range 2 {
			if err := registry.report(t.Context(), partition, system, pending, stale(before)); err != nil {
				t.Fatal(err)
			}
		}
		b.expect(want...)
	}
	registry.Open(plug(1), "s", 0)
	both("plug-1 online=false heartbeat-missed relay=true")
	registry.Open(plug(1), "t", time.Hour)
	both("plug-1 online=false heartbeat-missed relay=true", "plug-1 online=true back relay=true")
}
