package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/admission"
)

// source is a system with a state of a given size.
type source struct {
	mu    sync.Mutex
	head  uint64
	size  int
	loads int
	gate  chan struct{} // a load takes one before it reads; nil: it does not wait
}

func (s *source) at() domain.Cursor {
	return domain.Cursor{Position: domain.Position{Ms: s.head}, Seq: s.head}
}

func (s *source) append() domain.Cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head++
	return s.at()
}

func (s *source) Base(context.Context, domain.SystemID) (domain.Position, domain.Cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return domain.Position{}, s.at(), nil
}

func (s *source) WriteSnapshot(ctx context.Context, system domain.SystemID, write func([]byte) error) (domain.Cursor, error) {
	s.mu.Lock()
	s.loads++
	at, size := s.at(), s.size
	s.mu.Unlock()
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return domain.Cursor{}, ctx.Err()
		}
	}
	if err := write(fmt.Appendf(nil, `{"systemId":%q,"seq":%d,"x":"`, system, at.Seq)); err != nil {
		return at, err
	}
	for size > 0 {
		n := min(size, 32<<10)
		if err := write([]byte(strings.Repeat("x", n))); err != nil {
			return at, err
		}
		size -= n
	}
	return at, write([]byte(`"}`))
}

func newCache(t *testing.T, s *source, share int) (*Cache, *admission.Controller) {
	memory, err := admission.New(admission.Config{Capacity: 4 * share, Share: share, Queue: 100, QueueAll: 1000, Patience: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{Source: s, Memory: memory, Timeout: 30 * time.Second})
	t.Cleanup(c.Close)
	return c, memory
}

func get(t *testing.T, c *Cache) *Snapshot {
	t.Helper()
	s, err := c.Snapshot(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func isEmpty(t *testing.T, c *Cache, memory *admission.Controller) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if u := memory.Usage(); u != (admission.Usage{}) || len(c.systems) != 0 {
		t.Errorf("left over: %+v, %d systems", u, len(c.systems))
	}
}

// Callers that arrive while a snapshot is being made share the next one, which contains
// everything that had happened by then.
func TestThoseWhoAskTogetherShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 200 << 10, gate: make(chan struct{})}
		c, memory := newCache(t, s, 1<<20)
		got := make(chan *Snapshot, 100)
		ask := func(n int) {
			for range n {
				go func() { got <- get(t, c) }()
			}
			synctest.Wait()
		}
		ask(1)
		now := s.append()
		ask(99)
		s.gate <- struct{}{}
		first := <-got
		s.gate <- struct{}{}
		var second *Snapshot
		for range 99 {
			other := <-got
			if second == nil {
				second = other
			}
			if other != second || other.Cursor != now {
				t.Fatalf("a snapshot of %s at %s", other.Cursor, now)
			}
		}
		if s.loads != 2 {
			t.Errorf("%d loads", s.loads)
		}
		var body struct{ Seq uint64 }
		var frame struct {
			Event string
			Data  json.RawMessage
		}
		if err := json.Unmarshal(second.JSON(), &body); err != nil || body.Seq != now.Seq {
			t.Errorf("%v: %.80s", err, second.JSON())
		}
		if err := json.Unmarshal(second.Frame(), &frame); err != nil || frame.Event != "snapshot" || string(frame.Data) != string(second.JSON()) {
			t.Errorf("%v: %.80s", err, second.Frame())
		}
		first.Release()
		for range 99 {
			second.Release()
		}
		synctest.Wait()
		isEmpty(t, c, memory)
	})
}

// A snapshot that a caller still holds is shared as long as it is current.
func TestHeldSnapshotIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 100}
		c, memory := newCache(t, s, 1<<20)
		first, second := get(t, c), get(t, c)
		if first != second || s.loads != 1 {
			t.Errorf("%d loads", s.loads)
		}
		now := s.append()
		third := get(t, c)
		if third == first || third.Cursor != now || s.loads != 2 {
			t.Errorf("a snapshot of %s at %s", third.Cursor, now)
		}
		first.Release()
		second.Release()
		third.Release()
		if fourth := get(t, c); fourth == third || s.loads != 3 {
			t.Errorf("shared what nobody held")
		} else {
			fourth.Release()
		}
		synctest.Wait()
		isEmpty(t, c, memory)
	})
}

// Callers that hold snapshots without sending them use a bounded number of bytes: the next
// callers wait, and then fail with a retry time. Other systems are not affected.
func TestHeldBytesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 300 << 10}
		c, memory := newCache(t, s, 1<<20)
		var held []*Snapshot
		var last error
		for range 60 {
			s.append()
			got, err := c.Snapshot(t.Context(), "a")
			if err != nil {
				last = err
				break
			}
			held = append(held, got)
		}
		if !domain.HasCode(last, admission.CodeBusy) || len(held) < 2 || memory.Usage().Units > 1<<20 {
			t.Errorf("%d are held, %+v: %v", len(held), memory.Usage(), last)
		}
		if other, err := c.Snapshot(t.Context(), "b"); err != nil {
			t.Errorf("another system: %v", err)
		} else {
			other.Release()
		}
		held[0].Release()
		if again, err := c.Snapshot(t.Context(), "a"); err != nil {
			t.Errorf("after one was sent: %v", err)
		} else {
			again.Release()
		}
		for _, s := range held[1:] {
			s.Release()
		}
		synctest.Wait()
		isEmpty(t, c, memory)
	})
}

// If all callers are gone, the work ends, and the next caller gets a new snapshot.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{gate: make(chan struct{})}
		c, memory := newCache(t, s, 1<<20)
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			go func() {
				if _, err := c.Snapshot(ctx, "a"); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		isEmpty(t, c, memory)
		go func() { s.gate <- struct{}{} }()
		get(t, c).Release()
		synctest.Wait()
		isEmpty(t, c, memory)
	})
}

// Callers that share a snapshot each wait up to their own deadline, regardless of how long
// another has waited before the read began. A read that does not end times out.
func TestEachHasPatienceOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{gate: make(chan struct{})}
		c, memory := newCache(t, s, 1<<20)
		ask := func(ctx context.Context) <-chan error {
			answer := make(chan error, 1)
			go func() {
				got, err := c.Snapshot(ctx, "a")
				got.Release()
				answer <- err
			}()
			synctest.Wait()
			return answer
		}
		first := ask(t.Context())
		patient := ask(t.Context())
		short, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		impatient := ask(short)
		if err := <-impatient; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient one: %v", err)
		}
		late := ask(t.Context())
		s.append()           // so that the next reading is one
		s.gate <- struct{}{} // the first reading took 20 s
		if err := <-first; err != nil {
			t.Errorf("the first: %v", err)
		}
		after(t, 20*time.Second) // and so does the second: 40 s after it was asked for
		select {
		case s.gate <- struct{}{}:
		default:
			t.Error("the second reading has ended")
		}
		for _, answer := range []<-chan error{patient, late} {
			if err := <-answer; err != nil {
				t.Errorf("one of those who share the second: %v", err)
			}
		}
		began := time.Now()
		if err := <-ask(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 30*time.Second {
			t.Errorf("a reading that hangs: %v after %v", err, time.Since(began))
		}
		synctest.Wait()
		isEmpty(t, c, memory)
	})
}

// after returns when that much of the bubble's time has passed.
func after(t *testing.T, d time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
	synctest.Wait()
}

// explosive panics on the first read.
type explosive struct {
	source
	panicked bool
}

func (e *explosive) WriteSnapshot(ctx context.Context, system domain.SystemID, write func([]byte) error) (domain.Cursor, error) {
	if !e.panicked {
		e.panicked = true
		_ = write([]byte("x"))
		panic("a bad row")
	}
	return e.source.WriteSnapshot(ctx, system, write)
}

// If making a snapshot panics, its callers get an error. No bytes stay counted, and the
// next snapshot is made.
func TestPanicWhileOneIsMade(t *testing.T) {
	t.Parallel()
	memory, err := admission.New(admission.Config{Capacity: 1 << 20, Share: 1 << 20, Queue: 1, QueueAll: 1, Patience: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{Source: &explosive{}, Memory: memory, Timeout: 30 * time.Second})
	t.Cleanup(c.Close)
	if s, err := c.Snapshot(t.Context(), "clinica-sol"); err == nil {
		s.Release()
		t.Error("a snapshot came out of a panic")
	}
	if used := memory.Usage().Units; used != 0 {
		t.Errorf("%d bytes are held", used)
	}
	s, err := c.Snapshot(t.Context(), "clinica-sol")
	if err != nil {
		t.Fatal(err)
	}
	s.Release()
}
