package legacy

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/socketio"
	"github.com/plugcast/plugcast/transport/testpeer/legacyserver"
)

// siteOf is what a process remembers of a system of a link that does not run.
func siteOf(t *testing.T, store *memoryStore) *site {
	t.Helper()
	log := newMemoryLog()
	l := &link{config: Config{Common: bridge.Common{Name: "old"}, Systems: []System{{System: bridge.System{System: clinic}}}},
		parts: Parts{Deployment: deployment, Log: log, Reader: log, Store: store, Logger: logger()}, sites: map[domain.SystemID]*site{}}
	l.config.setDefaults()
	return l.site(clinic)
}

// The ticker and the pushing side save at the same time: the later place stays.
func TestSavesInOrder(t *testing.T) {
	t.Parallel()
	at := func(n uint64) *domain.Position { return &domain.Position{Ms: 1, N: n} }
	first, second := make(chan struct{}), make(chan struct{})
	store := &memoryStore{counts: map[string]uint64{}}
	store.keeping = func(kept Kept) {
		if *kept.Pushed == *at(1) {
			close(first)
			select { // the first is slow
			case <-second:
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	s := siteOf(t, store)
	state := &bridge.State{}
	var saving sync.WaitGroup
	s.kept.change(func(k *Kept) { k.Pushed = at(1) })
	saving.Go(func() { s.trySave(t.Context(), state) })
	<-first
	s.kept.change(func(k *Kept) { k.Pushed = at(2) })
	saving.Go(func() { s.trySave(t.Context(), state); close(second) })
	saving.Wait()
	if kept, err := store.Kept(t.Context(), "", ""); err != nil || *kept.Pushed != *at(2) {
		t.Errorf("kept %v, %v", kept.Pushed, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	<-s.saving // somebody saves for long
	if err := s.save(ended, state); err == nil {
		t.Error("nothing was saved, and nobody knows")
	}
}

// What a process says last, after another has taken over, does not put that one's
// place back; and when it runs again it goes on from there.
func TestLastWordsAfterAnother(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.until("a beginning was kept", func() bool { kept, _ := b.store.Kept(t.Context(), "", ""); return kept.Pushed != nil })
	b.ours(0)
	b.until("it went out", b.pushedAll)
	b.store.mu.Lock() // its clock is slow, and it is about to send what we sent
	b.store.kept.Revision++
	b.store.kept.Pushed, b.store.kept.Heard = &domain.Position{Ms: 1}, time.Now().Add(-time.Hour)
	want := b.store.kept
	b.store.mu.Unlock()
	b.stop()
	if kept, _ := b.store.Kept(t.Context(), "", ""); kept != want {
		t.Errorf("kept %+v, not %+v", kept, want)
	}
	b.start()
	b.until("it went on from the other's place", func() bool { return len(b.received()) == 2 })
}

// That our own log lost events is reported once.
func TestOurLogSetBack(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.until("a beginning was kept", func() bool { kept, _ := b.store.Kept(t.Context(), "", ""); return kept.Pushed != nil })
	b.stop()
	b.store.mu.Lock()
	b.store.kept.Pushed = &domain.Position{Ms: uint64(time.Now().Add(time.Hour).UnixMilli())}
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

// What may be lost is reported at once, also if what came before cannot be appended
// for long: we may die meanwhile.
func TestMaybeLostWhileTheLogIsAway(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.until("a beginning was kept", func() bool { kept, _ := b.store.Kept(t.Context(), "", ""); return kept.Pushed != nil })
	b.log.fail(true)
	b.server.Emit(theirs(0))
	b.until("the log is away", func() bool { return b.log.tried() > 0 })
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

// All that may be lost is reported, however much was written since the server was
// last known to have read it.
func TestMuchMayBeLost(t *testing.T) {
	t.Parallel()
	const total = 3*maxUnsettled + 1
	store := &memoryStore{counts: map[string]uint64{}}
	o := &outbox{site: siteOf(t, store), conn: &socketio.Conn{}} // nothing is confirmed
	for n := uint64(1); n <= total; n++ {
		at := domain.Position{Ms: 1, N: n}
		o.unsettled = append(o.unsettled, unsettled{number: n, first: at, position: at, count: 1})
		o.settle()
	}
	if n := len(o.unsettled); n > maxUnsettled {
		t.Errorf("%d are remembered", n)
	}
	o.uncertain()
	o.journal.keep(t.Context())
	found := store.found(domain.FindingMaybeLost)
	if len(found) != 1 || found[0].Count != total || found[0].After.N != 0 || found[0].Through.N != total {
		t.Errorf("reported: %+v", found)
	}
}

// That a connection is open is kept before anything goes over it: else a death would
// repeat a page, and nobody would say so.
func TestOpenIsKeptBeforeAnythingGoesOver(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{Ack: true}, `,"delivery":"acknowledged"`, "")
	b.until("a beginning was kept", func() bool { kept, _ := b.store.Kept(t.Context(), "", ""); return kept.Pushed != nil })
	b.stop()
	b.ours(0)
	var once sync.Once
	sent := -1
	b.store.keeping = func(kept Kept) {
		if kept.Open {
			once.Do(func() { sent = len(b.received()) })
		}
	}
	b.start()
	b.until("it went over", func() bool { return len(b.received()) == 1 })
	b.stop()
	if sent != 0 {
		t.Errorf("%d went over before", sent)
	}
	b.store.keeping = nil
}
