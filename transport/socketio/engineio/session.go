package engineio

import (
	"sync"
	"sync/atomic"
	"time"
)

// Handler handles the messages of a session.
type Handler interface {
	// Message handles a message. Messages come one after the other, in the order in which the
	// client sent them. The handler may keep data. While Message runs, only this client waits.
	Message(data []byte, binary bool)
	// Control counts other input of the client: a packet or a frame of the underlying
	// protocols without a message, or a request that cannot be served. answer says whether the
	// input gets its answer, if it has one. If stays is false, the session is closed. Control
	// is called at any time.
	Control() (answer, stays bool)
	// Closed is called once, when the session accepts nothing more, with one of the reasons or
	// the argument of [Session.Close]. It may be called while Message runs.
	Closed(reason string)
}

// Receipt is called when its item was written to the client's connection. That does not
// prove that the client has received it.
type Receipt interface{ Sent() }

// The reasons with which a session ends by itself, in the words of the Node server.
const (
	ReasonClosed  = "transport close" // the client closed it, or its connection broke
	ReasonError   = "transport error" // the client broke a rule of the transport
	ReasonTimeout = "ping timeout"    // no pong in time
	ReasonParse   = "parse error"     // a malformed packet
	ReasonForced  = "forced close"    // the server closed it
	ReasonStop    = "server shutting down"
)

// Session is the connection of one client, over any transport. Its methods are safe for
// concurrent use.
type Session struct {
	server  *Server
	id      string
	remote  string
	handler Handler

	due    atomic.Int64 // when the clock calls tick next, in Unix nanoseconds
	place  place        // its place in admission; guarded by the server's lock
	closed sync.Once    // guards the call of Handler.Closed

	order sync.Mutex // held while a message is handled

	mu      sync.Mutex
	state   state
	reason  string // why it is no longer open
	queue   []outgoing
	queued  int           // bytes in queue
	poll    *poll         // a GET that waits for something to take
	posting bool          // a POST is being handled
	got     string        // the mark of the last GET
	polls   int           // GETs so far, the handshake too
	posted  string        // the mark of the last POST
	leaving chan struct{} // a POST that ends the session waits for the last GET; closed when that comes
	socket  *socket       // carries the session; nil: polling does
	probing *socket       // wants to
	clock   clock
}

type state uint8

const (
	open    state = iota
	closing       // the queue is still sent
	closed
)

// clock holds the deadlines of a session; zero for none.
type clock struct {
	ping, pong, settle, upgrade, close time.Time
}

// outgoing is one item of a queue.
type outgoing struct {
	bytes   []byte // packets as a payload has them, or the data of a binary message
	receipt Receipt
	binary  bool
	single  bool // bytes is one packet, even if it contains Separator
	close   bool // the end of the session
}

// poll is a GET that waits.
type poll struct {
	items chan []outgoing // of capacity 1; gets one value, nil for a GET that may not be
}

// reorderWindow is how long the server waits for a request that was sent before another one
// and may arrive after it, because clients have two connections at a time.
const reorderWindow = 100 * time.Millisecond

// upgradePause is how soon a waiting GET of an upgrading client ends after the answer to the
// client's probe: not before, or the client begins another GET, and soon, because the client
// has stopped polling until then. If its connection breaks in that time, it waits for its
// ping timeout, because it does not resume polling (engine.io-client 6.6).
const upgradePause = 10 * time.Millisecond

func newSession(s *Server, remote string, now time.Time) *Session {
	c := &s.config
	session := &Session{server: s, id: c.NewID(), remote: remote}
	session.clock = clock{ping: now.Add(c.PingInterval), settle: now.Add(c.SettleTimeout)}
	return session
}

// ID returns the session's id, as the client has it.
func (s *Session) ID() string { return s.id }

// Remote returns the network address of the client.
func (s *Session) Remote() string { return s.remote }

// Transport returns the session's carrier: polling or websocket.
func (s *Session) Transport() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket != nil {
		return transportWebSocket
	}
	return transportPolling
}

// Settle reports that the client is authenticated. The session may stay as long as it
// answers pings, and no longer counts as unsettled.
func (s *Session) Settle() {
	s.server.settle(s)
	s.mu.Lock()
	s.clock.settle = time.Time{}
	s.mu.Unlock()
	s.schedule()
}

// Refused reports that the client has sent an invalid credential. While the session is not
// settled, it is among the first to end when others need its place.
func (s *Session) Refused() { s.server.refuse(s) }

// Send queues messages: their packets, each with its type, joined by [Separator]. The caller
// must not change the bytes afterwards. The receipt may be nil; it is not called if the
// session ends first. Send does nothing on an ended session.
func (s *Session) Send(packets []byte, receipt Receipt) {
	s.enqueue(outgoing{bytes: packets, receipt: receipt})
}

// SendText queues a text message without its type. The text may contain any character.
func (s *Session) SendText(data []byte) {
	s.enqueue(outgoing{bytes: append([]byte{packetMessage}, data...), single: true})
}

// SendBinary queues a binary message.
func (s *Session) SendBinary(data []byte) { s.enqueue(outgoing{bytes: data, binary: true}) }

func (s *Session) enqueue(item outgoing) {
	s.mu.Lock()
	if s.state != open {
		s.mu.Unlock()
		return
	}
	s.push(item)
	full := len(s.queue) > 1 && s.queued > s.server.config.MaxQueue || len(s.queue) > s.server.config.MaxQueued
	next := s.advance()
	s.mu.Unlock()
	next.write()
	if full {
		s.fail(ReasonError) // the client requests more than it reads
	}
}

// push appends an item to the queue. The caller holds the lock.
func (s *Session) push(item outgoing) {
	s.queue = append(s.queue, item)
	s.queued += len(item.bytes)
}

// take empties the queue for one payload. The end of the session stays for a payload of its
// own, because socket.io-client handles packets a moment after it has read them, and drops
// those that it read together with the end. So it would never learn the reason. The caller
// holds the lock.
func (s *Session) take() []outgoing {
	items := s.queue
	if last := len(items) - 1; last > 0 && items[last].close {
		s.queue, s.queued = items[last:], len(items[last].bytes)
		return items[:last]
	}
	s.queue, s.queued = nil, 0
	return items
}

// advance gives queued items to the carrier, as far as it is ready, and returns the item
// that the caller has to write after unlocking.
func (s *Session) advance() writing {
	switch {
	case s.socket != nil:
		return s.socket.next()
	case s.poll != nil && len(s.queue) > 0:
		s.poll.items <- s.take()
		s.poll = nil
	}
	return writing{}
}

// Close ends the session after the queue was sent, or after CloseTimeout. Closing twice is
// fine.
func (s *Session) Close(reason string) {
	s.mu.Lock()
	if s.state != open {
		s.mu.Unlock()
		return
	}
	s.state, s.reason = closing, reason
	s.clock = clock{close: time.Now().Add(s.server.config.CloseTimeout)}
	s.push(outgoing{bytes: closePacket, close: true})
	next, probing := s.advance(), s.probing
	s.probing = nil
	s.mu.Unlock()
	s.schedule()
	next.write()
	probing.end()
	s.notifyClosed()
}

// fail ends the session at once. The queue is not sent.
func (s *Session) fail(reason string) { s.finish(reason, closePacket) }

// finish ends the session at once, with a last packet for a waiting GET. If last is nil, the
// GET is refused.
func (s *Session) finish(reason string, last []byte) {
	s.mu.Lock()
	if s.state == closed {
		s.mu.Unlock()
		return
	}
	defer s.server.open.Leave()
	if s.state == open {
		s.reason = reason
	}
	s.state = closed
	s.queue, s.queued = nil, 0
	if s.poll != nil {
		var items []outgoing
		if last != nil {
			items = []outgoing{{bytes: last}}
		}
		s.poll.items <- items
		s.poll = nil
	}
	carrier, probing := s.socket, s.probing
	s.probing = nil
	s.mu.Unlock()
	s.server.remove(s)
	carrier.end()
	probing.end()
	s.notifyClosed()
}

// notifyClosed calls the handler's Closed. A connection that ends directly after
// [Session.Close] may be the first to call it; the reason is still that of Close.
func (s *Session) notifyClosed() {
	s.closed.Do(func() {
		s.mu.Lock()
		reason := s.reason
		s.mu.Unlock()
		s.server.settle(s)
		s.handler.Closed(reason)
	})
}

// receive handles a packet from the carrier.
func (s *Session) receive(p packet) {
	if p.kind != packetMessage && p.kind != packetClose {
		s.control() // a pong beyond the limit still counts as a pong
	}
	switch p.kind {
	case packetMessage:
		s.order.Lock()
		defer s.order.Unlock()
		if s.is(open) {
			s.handler.Message(p.data, p.binary)
		}
	case packetPong:
		s.mu.Lock()
		asked := !s.clock.pong.IsZero()
		if asked {
			s.clock.pong = time.Time{}
			s.clock.ping = time.Now().Add(s.server.config.PingInterval)
		}
		s.mu.Unlock()
		if !asked {
			s.server.refuse(s)
		}
		s.schedule()
	case packetClose:
		s.finish(ReasonClosed, noopPacket)
	case packetNoop, packetUpgrade: // useless here, but harmless
		s.server.refuse(s)
	default:
		s.fail(ReasonParse)
	}
}

// control counts input without a message, and reports whether to answer it.
func (s *Session) control() (answer bool) {
	answer, stays := s.handler.Control()
	if !stays {
		s.Close(ReasonForced)
	}
	return answer && stays
}

func (s *Session) is(want state) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == want
}

// tick handles the session's deadlines.
func (s *Session) tick(now time.Time) {
	past := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	s.mu.Lock()
	c := s.clock
	var late *socket
	if past(c.upgrade) {
		late, s.probing, s.clock.upgrade = s.probing, nil, time.Time{}
	}
	s.mu.Unlock()
	late.end()
	switch {
	case past(c.close):
		s.cut()
	case past(c.pong):
		s.fail(ReasonTimeout)
	case past(c.settle):
		s.Close(ReasonForced)
	case past(c.ping):
		s.ping(c.ping)
	}
	s.schedule()
}

// check runs due deadlines without waiting for the next tick, and reports whether the
// session still exists.
func (s *Session) check(now time.Time) bool {
	for s.due.Load() <= now.UnixNano() && !s.is(closed) {
		s.tick(now)
	}
	return !s.is(closed)
}

// ping sends a ping that was due at the given time. The deadline of the pong moves with the
// time at which the ping is written.
func (s *Session) ping(due time.Time) {
	c := &s.server.config
	s.mu.Lock()
	if !s.clock.ping.Equal(due) { // a concurrent call was faster
		s.mu.Unlock()
		return
	}
	s.clock.ping = time.Time{}
	s.clock.pong = due.Add(c.PingTimeout)
	if s.socket != nil && s.socket.busy {
		s.clock.pong = s.clock.pong.Add(c.WriteTimeout)
	}
	s.mu.Unlock()
	s.enqueue(outgoing{bytes: pingPacket, receipt: (*pinged)(s)})
}

// pinged is the receipt of a session's ping.
type pinged Session

// Sent implements [Receipt].
func (p *pinged) Sent() {
	s := (*Session)(p)
	s.mu.Lock()
	if !s.clock.pong.IsZero() {
		s.clock.pong = time.Now().Add(s.server.config.PingTimeout)
	}
	s.mu.Unlock()
	s.schedule()
}

// cut ends a session that did not take its last packets in time.
func (s *Session) cut() {
	s.mu.Lock()
	carrier := s.socket
	s.mu.Unlock()
	s.fail(ReasonForced)
	carrier.cut()
}

// schedule computes when tick is called next.
func (s *Session) schedule() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next int64 = 1<<63 - 1
	for _, t := range []time.Time{s.clock.ping, s.clock.pong, s.clock.settle, s.clock.upgrade, s.clock.close} {
		if !t.IsZero() {
			next = min(next, t.UnixNano())
		}
	}
	s.due.Store(next)
}
