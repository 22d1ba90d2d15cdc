package legacy

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

// maxEchoes bounds what is remembered of what was emitted.
const maxEchoes = 4096

// echoes remembers what was emitted a short while ago, so that it is known when it
// comes back without our mark. Each emission accounts for one echo.
type echoes struct {
	window time.Duration

	mu    sync.Mutex
	sent  map[[32]byte]int
	order []emission // oldest first
	// marks has the events of which an echo came back with its mark: this server
	// passes on members of them that it does not know, so one without is no echo.
	marks map[string]bool
}

type emission struct {
	event string
	sum   [32]byte
	at    time.Time
}

func newEchoes(window time.Duration) *echoes {
	return &echoes{window: window, sent: map[[32]byte]int{}, marks: map[string]bool{}}
}

func sumOf(event, content string) [32]byte { return sha256.Sum256([]byte(event + "\x00" + content)) }

// emitted notes what is about to be emitted.
func (e *echoes) emitted(event, content string, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.window <= 0 || e.marks[event] {
		return
	}
	e.forget(now)
	if len(e.order) == maxEchoes {
		e.drop()
	}
	sum := sumOf(event, content)
	e.sent[sum]++
	e.order = append(e.order, emission{event, sum, now})
}

// marked notes that an echo of an event came back with its mark.
func (e *echoes) marked(event string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.marks[event] {
		return
	}
	e.marks[event] = true
	e.order = slices.DeleteFunc(e.order, func(one emission) bool {
		if one.event == event {
			e.take(one.sum)
		}
		return one.event == event
	})
}

// isEcho tells whether something without a mark is what was emitted, and counts
// it off.
func (e *echoes) isEcho(event, content string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forget(now)
	sum := sumOf(event, content)
	if e.sent[sum] == 0 {
		return false
	}
	for i, one := range e.order {
		if one.sum == sum {
			e.order = append(e.order[:i], e.order[i+1:]...)
			break
		}
	}
	e.take(sum)
	return true
}

func (e *echoes) forget(now time.Time) {
	for len(e.order) > 0 && now.Sub(e.order[0].at) > e.window {
		e.drop()
	}
}

func (e *echoes) drop() {
	e.take(e.order[0].sum)
	e.order = e.order[1:]
}

func (e *echoes) take(sum [32]byte) {
	if e.sent[sum]--; e.sent[sum] == 0 {
		delete(e.sent, sum)
	}
}
