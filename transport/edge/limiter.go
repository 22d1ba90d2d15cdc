package edge

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"
)

// limiter counts the connections of a server by source. It is safe for concurrent use.
type limiter struct {
	maxTotal, maxPer int

	mu      sync.Mutex
	total   int
	sources map[string]*source
	waiting list.List // of *conn without a request under way, the longest-waiting first

	refused  [refusals]atomic.Int64
	evicted  atomic.Int64
	failures atomic.Int64 // accepts
	warned   [refusals + 1]atomic.Int64
}

// source is what one address has.
type source struct {
	count   int
	waiting list.List // as in limiter
}

// refusal is the limit that a connection was refused by.
type refusal int

const (
	byTotal refusal = iota
	byAddress
	refusals // how many there are
)

// patience is how long a connection that has no request yet, or none any more, is
// left alone when others need its place.
const patience = time.Second

// open counts a connection, or says which limit refuses it. At a limit, the
// connection that has waited longest for a request gives its place: one that has
// one under way, or that a face has taken over, does not.
func (l *limiter) open(c *conn, now time.Time) (refused refusal, ok bool) {
	l.mu.Lock()
	victim := (*conn)(nil)
	if c.source != "" && l.of(c.source).count >= l.maxPer {
		if victim = longest(&l.of(c.source).waiting, now); victim == nil {
			l.mu.Unlock()
			return byAddress, false
		}
	} else if l.total >= l.maxTotal {
		if victim = longest(&l.waiting, now); victim == nil {
			l.forget(c.source)
			l.mu.Unlock()
			return byTotal, false
		}
	}
	if victim != nil {
		l.busy(victim) // nobody else picks it
	}
	l.total++
	if c.source != "" {
		l.of(c.source).count++
	}
	l.mu.Unlock()
	if victim != nil {
		l.evicted.Add(1)
		_ = victim.Close() // the peer finds it closed, as after any idle time
	}
	return 0, true
}

// longest is the connection that has waited longest for a request, if that is long
// enough. The caller holds the lock.
func longest(waiting *list.List, now time.Time) *conn {
	if first := waiting.Front(); first != nil {
		if c := first.Value.(*conn); now.Sub(c.since) >= patience {
			return c
		}
	}
	return nil
}

// of is what an address has. The caller holds the lock, and counts something in or
// forgets it.
func (l *limiter) of(name string) *source {
	if l.sources[name] == nil {
		l.sources[name] = &source{}
	}
	return l.sources[name]
}

// forget drops an address that has nothing. The caller holds the lock.
func (l *limiter) forget(name string) {
	if s := l.sources[name]; s != nil && s.count == 0 {
		delete(l.sources, name)
	}
}

// wait notes that a connection has no request under way.
func (l *limiter) wait(c *conn, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.waiting != nil || c.gone {
		return
	}
	c.since = now
	c.waiting = l.waiting.PushBack(c)
	if c.source != "" {
		c.waitingAt = l.of(c.source).waiting.PushBack(c)
	}
}

// work notes that a request is under way, or that a face has the connection.
func (l *limiter) work(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy(c)
}

// busy takes a connection from those that wait. The caller holds the lock.
func (l *limiter) busy(c *conn) {
	if c.waiting == nil {
		return
	}
	l.waiting.Remove(c.waiting)
	if c.waitingAt != nil {
		l.sources[c.source].waiting.Remove(c.waitingAt)
	}
	c.waiting, c.waitingAt = nil, nil
}

// closed counts a connection out.
func (l *limiter) closed(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy(c)
	c.gone = true
	l.total--
	for _, name := range []string{c.source, c.client} {
		l.leave(name)
	}
}

// enter counts a request of a client behind a proxy, unless the client has too
// many.
func (l *limiter) enter(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.of(name)
	if s.count >= l.maxPer {
		return false
	}
	s.count++
	return true
}

// done counts a request of a client behind a proxy out. A connection that a face
// took over stays charged to the client until it is closed.
func (l *limiter) done(name string, c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.taken.Load() && !c.gone && c.client == "" {
		c.client = name
		return
	}
	l.leave(name)
}

// leave takes one from what an address has. The caller holds the lock.
func (l *limiter) leave(name string) {
	if s := l.sources[name]; name != "" && s != nil {
		s.count--
		l.forget(name)
	}
}

// warnEvery is how often one kind of trouble is logged.
const warnEvery = 10 * time.Second

// warn reports whether a kind of trouble may be logged again.
func (l *limiter) warn(kind int, now time.Time) bool {
	last := l.warned[kind].Load()
	return now.UnixNano()-last >= int64(warnEvery) && l.warned[kind].CompareAndSwap(last, now.UnixNano())
}
