package ws

import (
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
)

// outgoing is an item of a socket's queue: a frame or, at the end, the content of a close
// frame.
type outgoing struct {
	bytes []byte
	close []byte
	done  func()      // called when it has been written, or will not be; may be nil
	from  *membership // the room of the events in the frame; nil for other frames
	of    *membership // the room of a frame without events; the frame is dropped if the client has left the room
	kind  outgoingKind
}

type outgoingKind uint8

const (
	answer     outgoingKind = iota // always sent; bounded in number
	latestOnly                     // a heartbeat: a newer one replaces it and goes to the end of the queue
	metrics                        // of the admin dashboard: a newer frame takes the place of a queued one
)

// outbound is a socket's queue, guarded by the socket's lock. Melody has one item at a time;
// the others wait here.
type outbound struct {
	queue   []outgoing
	writing bool
	current outgoing // the item that is being written
	answers int      // in the queue
	bytes   int      // the size of those answers
}

// The limits of the answers that wait for a client that does not read them.
const (
	maxAnswers     = 64
	maxAnswerBytes = 8 << 20 // snapshots are the large ones
)

func (o *outbound) push(g outgoing) {
	switch g.kind {
	case answer:
	case latestOnly: // it describes the rooms after the queued frames
		o.filter(func(old *outgoing) bool { return old.kind != latestOnly })
	case metrics:
		for i := range o.queue {
			if o.queue[i].kind == metrics {
				o.bytes += len(g.bytes) - len(o.queue[i].bytes)
				o.queue[i] = g
				return
			}
		}
	}
	if g.from == nil {
		o.answers++
		o.bytes += len(g.bytes)
	}
	o.queue = append(o.queue, g)
}

// finish reports that g has been written, or will not be.
func (g *outgoing) finish() {
	if g.done != nil {
		g.done()
	}
}

// abandon empties the queue for good, and returns its items.
func (o *outbound) abandon() []outgoing {
	abandoned := append(o.queue, o.current)
	*o = outbound{writing: true} // so that nothing is written again
	return abandoned
}

// idle reports whether a new item can be written at once.
func (o *outbound) idle() bool { return !o.writing && len(o.queue) == 0 }

// overfull reports whether the client requests more answers than it reads.
func (o *outbound) overfull() bool {
	return o.answers > maxAnswers || o.answers > 1 && o.bytes > maxAnswerBytes
}

// next removes the next item to write, unless one is being written.
func (o *outbound) next() (outgoing, bool) {
	if o.writing || len(o.queue) == 0 {
		return outgoing{}, false
	}
	g := o.queue[0]
	o.queue[0] = outgoing{}
	if o.queue = o.queue[1:]; len(o.queue) == 0 {
		o.queue = nil // most sockets are idle most of the time
	}
	if g.from == nil {
		o.answers--
		o.bytes -= len(g.bytes)
	}
	o.writing, o.current = true, g
	return g, true
}

// drop removes the frames of rooms that the socket has left.
func (o *outbound) drop() {
	o.filter(func(g *outgoing) bool { return g.from == nil || !g.from.left })
}

// keepAnswers removes all frames with events.
func (o *outbound) keepAnswers() {
	o.filter(func(g *outgoing) bool { return g.from == nil })
}

func (o *outbound) filter(keep func(*outgoing) bool) {
	kept := o.queue[:0]
	for _, g := range o.queue {
		switch {
		case keep(&g):
			kept = append(kept, g)
		case g.from == nil:
			o.answers--
			o.bytes -= len(g.bytes)
		}
	}
	clear(o.queue[len(kept):])
	o.queue = kept
}

// enqueue queues an item, unless the socket is ending or has left the item's room.
func (s *socket) enqueue(g outgoing) {
	s.mu.Lock()
	if s.ending || g.from != nil && g.from.left || g.of != nil && g.of.left || g.kind == metrics && !s.watching {
		s.mu.Unlock()
		g.finish()
		return
	}
	if s.outbound.idle() { // the usual case needs no queue
		s.outbound.writing, s.outbound.current = true, g
		s.mu.Unlock()
		s.write(g)
		return
	}
	s.outbound.push(g)
	flooded := s.outbound.overfull()
	next, ok := s.outbound.next()
	s.mu.Unlock()
	if ok {
		s.write(next)
	}
	if flooded {
		s.end(closeFlood, errorFrame(nil, domain.Fail(domain.KindLimited, limit.CodeRateLimited, "read the answers before asking for more")))
	}
}

// write gives Melody an item. Melody has one item at a time, so its buffer always has room.
// Errors are ignored: they mean that the connection is gone, and disconnected will run.
func (s *socket) write(g outgoing) {
	if g.close != nil {
		_ = s.conn.CloseWithMsg(g.close)
		return
	}
	_ = s.conn.Write(g.bytes)
}

// sent runs in Melody's writing goroutine after a frame was written.
func (s *socket) sent() {
	s.mu.Lock()
	out := s.outbound.current
	from := out.from
	s.outbound.writing, s.outbound.current = false, outgoing{}
	next, ok := s.outbound.next()
	if from != nil {
		now := time.Now()
		s.lastTraffic = now
		if !s.ending {
			s.session.WakeBy(now.Add(s.server.config.IdleAfter))
		}
	}
	s.mu.Unlock()
	if ok {
		s.write(next)
	}
	out.finish()
	if from != nil {
		from.subscription.Sent()
	}
}
