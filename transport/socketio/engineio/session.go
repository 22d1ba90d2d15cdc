package engineio

import (
	"sync"
	"sync/atomic"
	"time"
)

// Handler takes what comes over a session.
type Handler interface {
	// Message takes a message, one after the other in the order in which the
	// client sent them. data is the handler's to keep. While it works, the client
	// waits, and nobody else does.
	Message(data []byte, binary bool)
	// Control counts something else that the client sent: a packet or a frame of the
	// protocols below that is no message, or a request that cannot be served. answer
	// says whether it gets the answer that it asks for, if any. The session is closed
	// when it may not stay. Control is called at any time.
	Control() (answer, stays bool)
	// Closed is called once, when the session takes nothing more, with one of the
	// reasons or what [Session.Close] was given. It may be called while Message
	// works.
	Closed(reason string)
}

// Receipt is told when what it belongs to was written to the client's connection.
// That is not to say that the client has it.
type Receipt interface{ Sent() }

// The reasons for which a session ends by itself, in the words of the Node server.
const (
	ReasonClosed  = "transport close" // the client closed it, or its connection broke
	ReasonError   = "transport error" // the client broke a rule of the transport
	ReasonTimeout = "ping timeout"    // no pong in time
	ReasonParse   = "parse error"     // a packet that is none
	ReasonForced  = "forced close"    // the server closed it
	ReasonStop    = "server shutting down"
)

// Session is the connection of one client, whatever carries it. Its methods are
// safe for concurrent use.
type Session struct {
	server  *Server
	id      string
	remote  string
	handler Handler

	due    atomic.Int64 // when tick should look at the session, Unix nanoseconds
	place  place        // where admission has it; guarded by the server's lock
	closed sync.Once    // the handler knows

	order sync.Mutex // held while a message is handled

	mu      sync.Mutex
	state   state
	reason  string // for which it is not open any more
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
	closing       // what is queued still goes out
	closed
)

// clock holds the times that a session has to keep; zero for none.
type clock struct {
	ping, pong, settle, upgrade, close time.Time
}

// outgoing is one item of a queue.
type outgoing struct {
	bytes   []byte // packets as a payload has them, or the data of a binary message
	receipt Receipt
	binary  bool
	single  bool // a single packet, whatever is in it
	close   bool // the end of the session
}

// poll is a GET that waits.
type poll struct {
	items chan []outgoing // of capacity 1; gets one value, nil for a GET that may not be
}

// reorderWindow is how long a request is waited for that was sent before another one
// and may come after it: clients have two connections at a time.
const reorderWindow = 100 * time.Millisecond

// upgradePause is when a GET of a client that upgrades ends: behind the answer to its
// probe, or the client begins another GET, and soon. Until then the client waits
// with its polling stopped, and one whose connection is cut just then waits for its
// ping timeout: it forgets to begin polling again (engine.io-client 6.6).
const upgradePause = 10 * time.Millisecond

func newSession(s *Server, remote string, now time.Time) *Session {
	c := &s.config
	session := &Session{server: s, id: c.NewID(), remote: remote}
	session.clock = clock{ping: now.Add(c.PingInterval), settle: now.Add(c.SettleTimeout)}
	return session
}

// ID is the session's, as the client has it.
func (s *Session) ID() string { return s.id }

// Remote is the network address of the client.
func (s *Session) Remote() string { return s.remote }

// Transport is what carries the session: polling or websocket.
func (s *Session) Transport() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket != nil {
		return transportWebSocket
	}
	return transportPolling
}

// Settle says that the client has shown who it is: the session may stay as long
// as it answers pings, and counts no longer as one of the unsettled.
func (s *Session) Settle() {
	s.server.settle(s)
	s.mu.Lock()
	s.clock.settle = time.Time{}
	s.mu.Unlock()
	s.schedule()
}

// Refused says that the client has shown a credential that is not valid: while the
// session is not settled, it is among the first to end when others need its place.
func (s *Session) Refused() { s.server.refuse(s) }

// Send queues messages: their packets, each with its type, joined by [Separator].
// Nobody changes the bytes afterwards. The receipt may be nil; it is not called
// when the session ends before. Sending to a session that ended does nothing.
func (s *Session) Send(packets []byte, receipt Receipt) {
	s.enqueue(outgoing{bytes: packets, receipt: receipt})
}

// SendText queues a text message, without its type, which may be any text.
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
		s.fail(ReasonError) // the client asks for more than it reads
	}
}

// push puts an item into the queue. The caller holds the lock.
func (s *Session) push(item outgoing) {
	s.queue = append(s.queue, item)
	s.queued += len(item.bytes)
}

// take empties the queue for one payload. The end of the session stays for a payload
// of its own: socket.io-client handles packets a moment after it has read them, and
// none of those before an end that it read with them. So it would never learn why.
// The caller holds the lock.
func (s *Session) take() []outgoing {
	items := s.queue
	if last := len(items) - 1; last > 0 && items[last].close {
		s.queue, s.queued = items[last:], len(items[last].bytes)
		return items[:last]
	}
	s.queue, s.queued = nil, 0
	return items
}

// advance moves what is queued to what carries the session, as far as that is
// ready, and returns what the caller has to write without the lock.
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

// Close ends the session when what was sent before it is out, or after
// CloseTimeout. Closing twice is fine.
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

// fail ends the session at once. Nothing that is queued goes out.
func (s *Session) fail(reason string) { s.finish(reason, closePacket) }

// finish ends the session at once, with a last packet for a GET that waits. The GET
// is refused when that is nil.
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

// over tells the handler. A connection that ends right behind [Session.Close] may be the
// first to call it, and the reason is that of Close.
func (s *Session) notifyClosed() {
	s.closed.Do(func() {
		s.mu.Lock()
		reason := s.reason
		s.mu.Unlock()
		s.server.settle(s)
		s.handler.Closed(reason)
	})
}

// receive handles a packet that came over what carries the session.
func (s *Session) receive(p packet) {
	if p.kind != packetMessage && p.kind != packetClose {
		s.control() // a pong that is one too many is one all the same
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
	case packetNoop, packetUpgrade: // of no use here, and no harm
		s.server.refuse(s)
	default:
		s.fail(ReasonParse)
	}
}

// control counts what is no message, and reports whether it is to be answered.
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

// tick looks at the times that the session has to keep.
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

// check is for who cannot wait for the next tick. It reports whether the session
// is still there.
func (s *Session) check(now time.Time) bool {
	for s.due.Load() <= now.UnixNano() && !s.is(closed) {
		s.tick(now)
	}
	return !s.is(closed)
}

// ping asks whether the client is there. It had to be asked at due; when the ping
// goes out later than that, so ends the time for the pong.
func (s *Session) ping(due time.Time) {
	c := &s.server.config
	s.mu.Lock()
	if !s.clock.ping.Equal(due) { // somebody else has seen it too, and was faster
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

// pinged is a session that has sent its ping.
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

// schedule works out when to look at the session next.
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
