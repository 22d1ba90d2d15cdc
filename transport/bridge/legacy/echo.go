package legacy

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"
)

// maxEchoes bounds the emitted payloads in memory.
const maxEchoes = 4096

// echoes remembers the payloads that were emitted recently, so that the link recognizes them
// if the server sends them back without our mark. Each emission accounts for one echo. It is
// safe for concurrent use.
type echoes struct {
	window time.Duration

	mu     sync.Mutex
	counts map[[32]byte]int // emissions by sum
	sent   []sentPayload    // oldest first
	// marked has the event names of which an echo came back with its mark: the server
	// passes on members that it does not know, so a payload without the mark is no echo.
	marked map[string]bool
}

type sentPayload struct {
	event string
	sum   [32]byte
	at    time.Time
}

func newEchoes(window time.Duration) *echoes {
	return &echoes{window: window, counts: map[[32]byte]int{}, marked: map[string]bool{}}
}

func sumOf(event, content string) [32]byte { return sha256.Sum256([]byte(event + "\x00" + content)) }

// add notes a payload that is about to be emitted.
func (e *echoes) add(event, content string, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.window <= 0 || e.marked[event] {
		return
	}
	e.expire(now)
	if len(e.sent) == maxEchoes {
		e.dropOldest()
	}
	sum := sumOf(event, content)
	e.counts[sum]++
	e.sent = append(e.sent, sentPayload{event, sum, now})
}

// setMarked notes that an echo of an event came back with its mark.
func (e *echoes) setMarked(event string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.marked[event] {
		return
	}
	e.marked[event] = true
	e.sent = slices.DeleteFunc(e.sent, func(one sentPayload) bool {
		if one.event == event {
			e.uncount(one.sum)
		}
		return one.event == event
	})
}

// isEcho reports whether a payload without a mark was emitted within the window, and removes
// that emission.
func (e *echoes) isEcho(event, content string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expire(now)
	sum := sumOf(event, content)
	if e.counts[sum] == 0 {
		return false
	}
	i := slices.IndexFunc(e.sent, func(one sentPayload) bool { return one.sum == sum })
	e.sent = slices.Delete(e.sent, i, i+1)
	e.uncount(sum)
	return true
}

func (e *echoes) expire(now time.Time) {
	for len(e.sent) > 0 && now.Sub(e.sent[0].at) > e.window {
		e.dropOldest()
	}
}

func (e *echoes) dropOldest() {
	e.uncount(e.sent[0].sum)
	e.sent = e.sent[1:]
}

func (e *echoes) uncount(sum [32]byte) {
	if e.counts[sum]--; e.counts[sum] == 0 {
		delete(e.counts, sum)
	}
}
