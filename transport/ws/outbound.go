package ws

import (
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
)

// outgoing is something to be written to a socket: a frame or, at the end, the
// content of a close frame.
type outgoing struct {
	bytes []byte
	close []byte
	done  func()      // when it was written, or will not be; may be nil
	from  *membership // whose events are in the frame; nil for all other frames
	of    *membership // whose room else the frame speaks of: it goes only to a client that is in it
	kind  outgoingKind
}

type outgoingKind uint8

const (
	answer     outgoingKind = iota // to be sent in any case, and bounded in number
	onlyNewest                     // a heartbeat: a newer one replaces it, at the end
	metrics                        // of the admin dashboard: a newer one takes its place
)

// outbound is a socket's queue. It is guarded by the socket's lock. One thing at
// a time is with Melody; the rest waits here.
type outbound struct {
	queue   []outgoing
	writing bool
	current outgoing // is being written
	answers int      // in the queue
	bytes   int      // of them
}

// Bounds of the answers that wait for a client that does not read them.
const (
	maxAnswers     = 64
	maxAnswerBytes = 8 << 20 // snapshots are the large ones
)

func (o *outbound) push(g outgoing) {
	switch g.kind {
	case answer:
	case onlyNewest: // it speaks of rooms as they are behind what is queued
		o.filter(func(old *outgoing) bool { return old.kind != onlyNewest })
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

// finish says that g was written, or will not be.
func (g *outgoing) finish() {
	if g.done != nil {
		g.done()
	}
}

// abandon empties the queue for good, and returns what was in it.
func (o *outbound) abandon() []outgoing {
	abandoned := append(o.queue, o.current)
	*o = outbound{writing: true} // nothing is written any more
	return abandoned
}

// idle reports whether what comes can be written at once.
func (o *outbound) idle() bool { return !o.writing && len(o.queue) == 0 }

// overfull reports whether the client asks for more than it reads.
func (o *outbound) overfull() bool {
	return o.answers > maxAnswers || o.answers > 1 && o.bytes > maxAnswerBytes
}

// next takes what is to be written now, if anything is and nothing is under way.
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

// drop takes out the frames of rooms that the socket has left.
func (o *outbound) drop() {
	o.filter(func(g *outgoing) bool { return g.from == nil || !g.from.left })
}

// keepAnswers takes out all frames of rooms.
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

// enqueue puts something into the queue, unless the socket is ending or has left
// what it comes from.
func (s *socket) enqueue(g outgoing) {
	s.mu.Lock()
	if s.ending || g.from != nil && g.from.left || g.of != nil && g.of.left || g.kind == metrics && !s.watching {
		s.mu.Unlock()
		g.finish()
		return
	}
	if s.outbound.idle() { // nearly always: then nothing needs a queue
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

// write gives Melody the one thing that it has at a time, so its buffer always
// has room. A connection that is gone takes nothing, and needs nothing: it is on
// its way to disconnected.
func (s *socket) write(g outgoing) {
	if g.close != nil {
		_ = s.conn.CloseWithMsg(g.close)
		return
	}
	_ = s.conn.Write(g.bytes)
}

// sent runs in Melody's writing goroutine when a frame is out.
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
