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
	waiting list.List // of *conn without a request, the longest-waiting first

	refused  [refusals]atomic.Int64
	evicted  atomic.Int64
	failures atomic.Int64 // of Accept
	warned   [refusals + 1]atomic.Int64
}

// source is the state of one address.
type source struct {
	count   int
	waiting list.List // as in limiter, for this address
}

// refusal is the limit that refused a connection.
type refusal int

const (
	byTotal refusal = iota
	byAddress
	refusals // the number of limits
)

// gracePeriod is how long a connection without a request is kept when other connections
// need its place.
const gracePeriod = time.Second

// open counts a connection, or returns the limit that refuses it. At a limit, it closes the
// connection that has waited longest for a request. It never closes a connection with a
// request in progress, or one that a face has taken over.
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
		l.busy(victim) // so that no other call picks it
	}
	l.total++
	if c.source != "" {
		l.of(c.source).count++
	}
	l.mu.Unlock()
	if victim != nil {
		l.evicted.Add(1)
		_ = victim.Close() // the peer sees the same as after an idle timeout
	}
	return 0, true
}

// longest returns the connection that has waited longest for a request, if that is longer
// than gracePeriod. The caller holds the lock.
func longest(waiting *list.List, now time.Time) *conn {
	if first := waiting.Front(); first != nil {
		if c := first.Value.(*conn); now.Sub(c.since) >= gracePeriod {
			return c
		}
	}
	return nil
}

// of returns the state of an address, and adds it if it is new. The caller holds the lock,
// and must count something or call forget.
func (l *limiter) of(name string) *source {
	if l.sources[name] == nil {
		l.sources[name] = &source{}
	}
	return l.sources[name]
}

// forget removes an address without connections. The caller holds the lock.
func (l *limiter) forget(name string) {
	if s := l.sources[name]; s != nil && s.count == 0 {
		delete(l.sources, name)
	}
}

// wait records that a connection has no request in progress.
func (l *limiter) wait(c *conn, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.waiting != nil || c.closed {
		return
	}
	c.since = now
	c.waiting = l.waiting.PushBack(c)
	if c.source != "" {
		c.waitingAt = l.of(c.source).waiting.PushBack(c)
	}
}

// work records that a request is in progress, or that a face has the connection.
func (l *limiter) work(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy(c)
}

// busy removes a connection from the waiting ones. The caller holds the lock.
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

// closed stops counting a connection.
func (l *limiter) closed(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy(c)
	c.closed = true
	l.total--
	for _, name := range []string{c.source, c.client} {
		l.leave(name)
	}
}

// enter counts a request of a client behind a proxy. It returns false if the client is at
// its limit.
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

// done stops counting a request of a client behind a proxy. A connection that a face took
// over counts towards the client until it is closed.
func (l *limiter) done(name string, c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.hijacked.Load() && !c.closed && c.client == "" {
		c.client = name
		return
	}
	l.leave(name)
}

// leave decrements the count of an address. The caller holds the lock.
func (l *limiter) leave(name string) {
	if s := l.sources[name]; name != "" && s != nil {
		s.count--
		l.forget(name)
	}
}

// warnEvery is the least time between two log lines of one kind.
const warnEvery = 10 * time.Second

// warn reports whether a log line of this kind is due.
func (l *limiter) warn(kind int, now time.Time) bool {
	last := l.warned[kind].Load()
	return now.UnixNano()-last >= int64(warnEvery) && l.warned[kind].CompareAndSwap(last, now.UnixNano())
}
