// Package lifecycle holds every part of the platform that runs to one contract, with the stress test [Stress]:
//
//   - New starts no goroutine.
//   - Run blocks until its context ends, and then returns nil. It may run again afterwards, unless the part says otherwise.
//   - Shutdown, or Close, ends a part that works when it is called, such as an [net/http.Handler]. It may be called at any
//     time, by several goroutines, and again. When its own context ends first, it cuts off what is left and returns that
//     context's error.
//   - When Run and Shutdown have returned, no goroutine of the part is left, and its other methods return errors or do
//     nothing. They never panic.
package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Part is one value under test. At least one of Run and Shutdown is set.
type Part struct {
	// Run blocks until ctx ends.
	Run func(ctx context.Context) error
	// Once says that Run may be called once only. Then a second call is not made.
	Once bool
	// Shutdown ends the part. Without it, Run leaves nothing that needs an end.
	Shutdown func(ctx context.Context) error
	// Use calls the other methods of the part. It is called before, during and after Run, by several goroutines at a time,
	// and ignores errors. It must return soon after ctx ends.
	Use func(ctx context.Context)
	// Connected says that an Open made the part and not a New: its connections may have goroutines, which Shutdown ends.
	Connected bool
}

const (
	rounds = 12
	// longestLife bounds the random time after which a round ends its part.
	longestLife = 30 * time.Millisecond
)

// patience bounds each wait. It is long, because only a part that hangs exhausts it.
var patience = 30 * time.Second

// Stress makes parts and ends them at random moments, and fails the test if one breaks the contract of the package. What
// make needs and shares, such as connections and servers, must exist before the call, because goroutines that start in
// make count as the part's. Stress may run in parallel with other tests.
func Stress(t *testing.T, make func(t *testing.T) Part) {
	t.Helper()
	for n := range rounds {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			for _, breach := range breaches(n, func() Part { return make(t) }) {
				t.Error(breach)
			}
		})
	}
}

var lastLabel atomic.Int64

const labelKey = "lifecycle"

// breaches does one round, and returns how the part broke the contract. Goroutines inherit the labels of their creator, so
// a label tells the goroutines of this part from all others in the process.
func breaches(n int, make func() Part) []string {
	label := fmt.Sprint("round ", lastLabel.Add(1))
	r := round{n: n}
	done := channelOf(func() {
		pprof.Do(context.Background(), pprof.Labels(labelKey, label), func(context.Context) {
			r.part = make()
			if running := goroutines(label); running != "" && !r.part.Connected {
				r.breach("New started a goroutine:\n%s", running)
			}
			r.run()
		})
	})
	if !within(done, patience) {
		return []string{"the part does not end:\n" + goroutines(label)}
	}
	if running := left(label); running != "" {
		r.breach("goroutines are left:\n%s", running)
	}
	return r.broken
}

// round runs one part and ends it.
type round struct {
	part Part
	n    int

	mu     sync.Mutex
	broken []string
}

func (r *round) breach(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, fmt.Sprintf(format, args...))
}

func (r *round) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lives := 3
	if r.part.Once || r.part.Run == nil {
		lives = 1
	}
	for life := range lives {
		r.live(ctx, life)
	}
	if r.part.Shutdown != nil {
		r.shutdown(ctx) // again, and after Run's end
	}
	after, cancel := context.WithTimeout(ctx, longestLife)
	defer cancel()
	r.use(after)
}

// live runs the part once while others use it, and ends it.
func (r *round) live(ctx context.Context, life int) {
	// Cancelled, and not given a deadline: clients hand a deadline on to their sockets, which may fail an instant sooner.
	running, end := context.WithCancel(ctx)
	defer end()
	defer time.AfterFunc(rand.N(longestLife), end).Stop()
	if (r.n+life)%3 == 0 {
		end() // before Run begins
	}
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() { r.use(running) })
	}
	if r.part.Run != nil {
		all.Go(func() {
			if err := r.part.Run(running); err != nil {
				r.breach("Run returned %v after the end of its context", err)
			}
			if running.Err() == nil && r.part.Shutdown == nil {
				r.breach("Run returned before the end of its context")
			}
		})
	}
	if r.part.Shutdown != nil {
		for range 2 {
			all.Go(func() {
				if r.n%2 == 0 {
					<-running.Done()
				}
				r.shutdown(ctx)
			})
		}
		all.Go(func() {
			<-running.Done() // Shutdown and the end of Run at the same time, with a context that has ended
			if err := r.part.Shutdown(running); err != nil && !errors.Is(err, running.Err()) {
				r.breach("Shutdown returned %v, and not the error of its context", err)
			}
		})
	}
	all.Wait()
}

func (r *round) shutdown(ctx context.Context) {
	if err := r.part.Shutdown(ctx); err != nil {
		r.breach("Shutdown returned %v", err)
	}
}

func (r *round) use(ctx context.Context) {
	if r.part.Use != nil {
		r.part.Use(ctx)
	}
}

func channelOf(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

func within(done <-chan struct{}, limit time.Duration) bool {
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// left waits until no goroutine has the label, and returns those that stay. A goroutine may outlive by an instant the call
// that waited for it, and the pools of Redis and Postgres connect in goroutines that nobody waits for.
func left(label string) string {
	for deadline := time.Now().Add(patience); ; {
		running := goroutines(label)
		if running == "" || time.Now().After(deadline) {
			return running
		}
		<-time.After(time.Millisecond)
	}
}

// goroutines returns the stacks of the goroutines that have the label, without the one that asks.
func goroutines(label string) string {
	var all bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&all, 1) // a Buffer takes everything
	var found []string
	for stack := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(stack, fmt.Sprintf("%q:%q", labelKey, label)) && !strings.Contains(stack, "lifecycle.goroutines+") {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}
