package legacy

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
	"github.com/plugcast/plugcast/transport/testpeer/legacyserver"
)

// newSystemLink makes a system of a link that does not run.
func newSystemLink(t *testing.T, store *memoryStore) *systemLink {
	t.Helper()
	log := newMemoryLog()
	config := Config{Common: bridge.Common{Name: "old"}, Systems: []System{{System: bridge.System{System: clinic}}}}
	return newLink(config, Parts{Deployment: deployment, Log: log, Reader: log, Store: store, Logger: logger()}).systems[clinic]
}

// If the ticker and push save at the same time, the later state stays.
func TestSavesInOrder(t *testing.T) {
	t.Parallel()
	at := func(n uint64) *domain.Position { return &domain.Position{Ms: 1, N: n} }
	first, second := make(chan struct{}), make(chan struct{})
	store := &memoryStore{counts: map[string]uint64{}}
	store.onSave = func(saved SavedState) {
		if *saved.Pushed == *at(1) {
			close(first)
			select { // the first save is slow
			case <-second:
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	s := newSystemLink(t, store)
	state := &bridge.State{}
	var saving sync.WaitGroup
	s.saved.change(func(k *SavedState) { k.Pushed = at(1) })
	saving.Go(func() { s.trySave(t.Context(), state) })
	<-first
	s.saved.change(func(k *SavedState) { k.Pushed = at(2) })
	saving.Go(func() { s.trySave(t.Context(), state); close(second) })
	saving.Wait()
	if saved, err := store.LoadState(t.Context(), "", ""); err != nil || *saved.Pushed != *at(2) {
		t.Errorf("saved %v, %v", saved.Pushed, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s.saveLock <- struct{}{} // another save takes long
	if err := s.save(ended, state); err == nil {
		t.Error("save did not save, and returned no error")
	}
}

// The last save of a process does not replace the state of a process that has taken the link
// over. If the first process runs the link again, it continues from the other's state.
func TestLastSaveAfterATakeover(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.until("a start was saved", func() bool { saved, _ := b.store.LoadState(t.Context(), "", ""); return saved.Pushed != nil })
	b.ours(0)
	b.until("it went out", b.pushedAll)
	b.store.mu.Lock() // another process, whose clock is slow, and which is about to send our event again
	b.store.saved.Revision++
	b.store.saved.Pushed, b.store.saved.Heard = &domain.Position{Ms: 1}, time.Now().Add(-time.Hour)
	want := b.store.saved
	b.store.mu.Unlock()
	b.stop()
	if saved, _ := b.store.LoadState(t.Context(), "", ""); saved != want {
		t.Errorf("saved %+v, not %+v", saved, want)
	}
	b.start()
	b.until("it went on from the other's place", func() bool { return len(b.received()) == 2 })
}

// The link reports once that our own log lost events.
func TestOurLogSetBack(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.until("a start was saved", func() bool { saved, _ := b.store.LoadState(t.Context(), "", ""); return saved.Pushed != nil })
	b.stop()
	b.store.mu.Lock()
	b.store.saved.Pushed = &domain.Position{Ms: uint64(time.Now().Add(time.Hour).UnixMilli())}
	b.store.mu.Unlock()
	for range 2 {
		b.start()
		b.until("it was reported", func() bool { return len(b.store.found(domain.FindingMaybeLost)) > 0 })
		b.until("it goes on", func() bool { return b.log.followed() })
		b.stop()
	}
	if found := b.store.found(domain.FindingMaybeLost); len(found) != 1 {
		t.Errorf("reported: %+v", found)
	}
}

// If our own log loses or renumbers events while the link follows it, the link reports that once and goes on.
func TestOurLogChangesUnderTheLink(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*memoryLog){
		"renumbered":                  func(l *memoryLog) { l.Recount(clinic) },
		"set back, and grown past it": func(l *memoryLog) { l.Forget(clinic, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, legacyserver.Options{}, "", "")
			b.until("the link follows our log", b.log.followed)
			b.ours(0)
			b.ours(1)
			b.until("they went over", b.pushedAll)
			at, err := b.log.End(t.Context(), clinic)
			if err != nil {
				t.Fatal(err)
			}
			change(b.log)
			b.ours(2)
			b.until("the link reported it", func() bool { return len(b.store.found(domain.FindingMaybeLost)) > 0 })
			b.until("the next event went over", func() bool { got := b.received(); return len(got) > 0 && got[len(got)-1] == 2 })
			b.stop()
			if found := b.store.found(domain.FindingMaybeLost); len(found) != 1 || found[0].After == nil || *found[0].After != at {
				t.Errorf("reported: %+v, want one finding after %s", found, at)
			}
		})
	}
}

// The link reports at once which events may be lost, even if it cannot append the incoming ones
// for long: the process may die in that time.
func TestMaybeLostWhileTheLogFails(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.until("a start was saved", func() bool { saved, _ := b.store.LoadState(t.Context(), "", ""); return saved.Pushed != nil })
	b.log.fail(true)
	b.server.Emit(theirs(0))
	b.until("the log fails", func() bool { return b.log.tried() > 0 })
	for n := range 5 {
		b.ours(n)
	}
	b.until("they were written", b.pushedAll)
	b.proxy.Cut()
	b.until("it was reported", func() bool { return len(b.store.found(domain.FindingMaybeLost)) == 1 })
	if got := b.pulled(); len(got) != 0 {
		t.Errorf("came in: %v", got)
	}
	b.log.fail(false)
}

// The report covers all events that may be lost, however many were written since the server
// last confirmed one.
func TestMuchMayBeLost(t *testing.T) {
	t.Parallel()
	const total = 3*maxUnconfirmed + 1
	store := &memoryStore{counts: map[string]uint64{}}
	o := &outbox{systemLink: newSystemLink(t, store), conn: &sioclient.Conn{}} // nothing is confirmed
	for n := uint64(1); n <= total; n++ {
		at := domain.Position{Ms: 1, N: n}
		o.unconfirmed = append(o.unconfirmed, emission{number: n, first: at, position: at, count: 1})
		o.dropConfirmed()
	}
	if n := len(o.unconfirmed); n > maxUnconfirmed {
		t.Errorf("%d are remembered", n)
	}
	o.reportUnconfirmed()
	o.reporter.flush(t.Context())
	found := store.found(domain.FindingMaybeLost)
	if len(found) != 1 || found[0].Count != total || found[0].After.N != 0 || found[0].Through.N != total {
		t.Errorf("reported: %+v", found)
	}
}

// The link saves that a connection is open before it emits anything: otherwise nobody would
// report the page that is sent twice after a crash.
func TestOpenIsSavedBeforeTheFirstEmission(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{Ack: true}, `,"delivery":"acknowledged"`, "")
	b.until("a start was saved", func() bool { saved, _ := b.store.LoadState(t.Context(), "", ""); return saved.Pushed != nil })
	b.stop()
	b.ours(0)
	var once sync.Once
	sent := -1
	b.store.onSave = func(saved SavedState) {
		if saved.Open {
			once.Do(func() { sent = len(b.received()) })
		}
	}
	b.start()
	b.until("it went over", func() bool { return len(b.received()) == 1 })
	b.stop()
	if sent != 0 {
		t.Errorf("%d went over before", sent)
	}
	b.store.onSave = nil
}
