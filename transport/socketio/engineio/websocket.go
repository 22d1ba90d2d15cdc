package engineio

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/handoff"
)

// socket is a WebSocket that carries a session, or is about to take it over.
type socket struct {
	server  *Server
	session *Session // set before it is connected, when it is to take a session over; nil for good when begin panicked
	conn    *melody.Session
	cork    *cork
	spoke   atomic.Bool // the client has sent something

	// Guarded by the session's lock.
	busy     bool     // a packet is with Melody
	current  outgoing // of which packets are being written
	rest     []byte   // of its packets
	answered bool     // its probe was
	ended    bool
}

// writing is an item to write to a socket after unlocking; the zero value is none.
type writing struct {
	to     *socket
	packet []byte
	binary bool
	close  bool
}

// next returns the next packet to write, unless one is being written. The caller holds the
// session's lock.
func (k *socket) next() writing {
	s := k.session
	if k.busy || k.ended {
		return writing{} // nothing follows a close frame, and nothing may delay it
	}
	if len(k.rest) == 0 {
		if len(s.queue) == 0 {
			return writing{}
		}
		k.current = s.queue[0]
		s.queued -= len(k.current.bytes)
		s.queue[0] = outgoing{}
		if s.queue = s.queue[1:]; len(s.queue) == 0 {
			s.queue = nil // most sockets are idle most of the time
		}
		k.rest = k.current.bytes
	}
	k.busy = true
	switch {
	case k.current.close:
		k.cork.more.Store(false)
		return writing{to: k, close: true}
	case k.current.binary || k.current.single:
		data := k.rest
		k.rest = nil
		k.cork.more.Store(len(s.queue) > 0)
		return writing{to: k, packet: data, binary: k.current.binary}
	default:
		var packet []byte
		packet, k.rest = cutPacket(k.rest)
		k.cork.more.Store(len(k.rest) > 0 || len(s.queue) > 0)
		return writing{to: k, packet: packet}
	}
}

// write gives Melody an item. Melody has one item at a time, so its buffer always has room.
// Errors are ignored: they mean that the connection is gone.
func (w writing) write() {
	switch {
	case w.to == nil:
	case w.close:
		_ = w.to.conn.CloseWithMsg(melody.FormatCloseMessage(websocket.CloseNormalClosure, ""))
	case w.binary:
		_ = w.to.conn.WriteBinary(w.packet)
	default:
		_ = w.to.conn.Write(w.packet)
	}
}

// sent runs in Melody's writing goroutine after a packet was written.
func (k *socket) sent() {
	s := k.session
	var receipt Receipt
	var next writing
	s.mu.Lock()
	k.busy = false
	if len(k.rest) == 0 {
		receipt = k.current.receipt
		k.current = outgoing{}
	}
	if s.socket == k {
		next = k.next()
	}
	s.mu.Unlock()
	next.write()
	if receipt != nil {
		receipt.Sent()
	}
}

// end closes the connection with a close frame. A nil socket has none.
func (k *socket) end() {
	if k == nil {
		return
	}
	k.session.mu.Lock()
	k.ended = true
	k.cork.more.Store(false)
	k.session.mu.Unlock()
	_ = k.conn.CloseWithMsg(melody.FormatCloseMessage(websocket.CloseNormalClosure, ""))
}

// cut closes the TCP connection at once.
func (k *socket) cut() {
	if k != nil {
		_ = k.conn.WebsocketConnection().Close()
	}
}

// received handles a frame from the client.
func (k *socket) received(message []byte, binary bool) {
	p, err := packet{kind: packetMessage, data: message, binary: true}, error(nil)
	if !binary {
		p, err = parsePacket(message)
	}
	s := k.session
	s.mu.Lock()
	carries, ended := s.socket == k, k.ended
	s.mu.Unlock()
	if k.spoke.CompareAndSwap(false, true) {
		k.server.mu.Lock()
		k.server.spoke(s)
		k.server.mu.Unlock()
	}
	switch {
	case ended:
	case !carries:
		k.takeOver(p, err)
	case err != nil:
		s.fail(ReasonParse)
	default:
		s.receive(p)
	}
}

// takeOver handles the frames of a WebSocket before it carries the session: a probe and,
// after its answer, the upgrade.
func (k *socket) takeOver(p packet, err error) {
	s := k.session
	s.mu.Lock()
	switch {
	case err != nil || s.probing != k:
		s.mu.Unlock()
		k.abandon()
	case p.kind == packetPing && string(p.data) == probe && !k.answered:
		k.answered, k.busy = true, true
		waiting := s.poll
		s.mu.Unlock()
		_ = k.conn.Write(probeAnswer)
		if waiting != nil {
			time.AfterFunc(upgradePause, func() { s.release(waiting) })
		}
	case p.kind == packetUpgrade && k.answered:
		s.probing, s.socket, s.clock.upgrade = nil, k, time.Time{}
		if s.poll != nil {
			s.poll.items <- nil
			s.poll = nil
		}
		next := k.next()
		s.mu.Unlock()
		next.write()
	default:
		s.mu.Unlock()
		k.abandon()
	}
}

// release ends a waiting GET, if it still waits, because the client needs it to end.
func (s *Session) release(waiting *poll) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll == waiting && waiting != nil {
		waiting.items <- []outgoing{{bytes: noopPacket}}
		s.poll = nil
	}
}

// abandon closes a WebSocket that was about to take the session over. The session continues
// as before.
func (k *socket) abandon() {
	s := k.session
	s.mu.Lock()
	if s.probing == k {
		s.probing, s.clock.upgrade = nil, time.Time{}
	}
	s.mu.Unlock()
	k.end()
}

// gone runs in the reading goroutine after the connection is gone.
func (k *socket) gone() {
	k.server.open.Remove(k)
	s := k.session
	if s == nil {
		return
	}
	s.mu.Lock()
	carried := s.socket == k
	if s.probing == k {
		s.probing, s.clock.upgrade = nil, time.Time{}
	}
	k.ended, k.busy = true, true // nothing is written any more
	s.mu.Unlock()
	if carried {
		s.finish(ReasonClosed, nil)
	}
}

// serveWebSocket begins a session over a WebSocket, or lets the WebSocket take session over.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, session *Session) {
	if !s.open.Enter() {
		failStopping.write(w)
		return
	}
	defer s.open.Leave()
	k := &socket{server: s, session: session}
	handoff.Serve(w, &s.open.Group, s.config.Logger, func(w http.ResponseWriter) {
		w = corking{ResponseWriter: w, socket: k}
		if err := s.melody.HandleRequestWithKeys(w, r, map[string]any{sessionSocket: k}); err != nil {
			s.config.Logger.Debug("engineio: no upgrade", "remote", r.RemoteAddr, "error", err)
		}
	})
}

// sessionSocket is the key under which a Melody session knows its socket.
const sessionSocket = "socket"

func socketOf(session *melody.Session) *socket { return session.MustGet(sessionSocket).(*socket) }

func (s *Server) newMelody() *melody.Melody {
	// Engine.IO's own pings detect dead clients, so WebSocket pings are not needed.
	const never = 24 * time.Hour
	m := melody.New()
	m.Upgrader = &websocket.Upgrader{
		CheckOrigin:     func(*http.Request) bool { return true }, // ServeHTTP has checked it
		WriteBufferPool: &sync.Pool{},
		WriteBufferSize: 4 << 10,
	}
	m.Config.MaxMessageSize = s.config.MaxPayload
	m.Config.MessageBufferSize = 4 // at most a packet, a probe's answer and a close
	m.Config.WriteWait = s.config.WriteTimeout
	m.Config.PongWait, m.Config.PingPeriod = 2*never, never
	m.HandleConnect(func(session *melody.Session) { defer s.recoverPanic(session); socketOf(session).connected(session) })
	m.HandleDisconnect(func(session *melody.Session) { defer s.recoverPanic(session); socketOf(session).gone() })
	m.HandleMessage(func(session *melody.Session, message []byte) { socketOf(session).receivedInGoroutine(message, false) })
	m.HandleMessageBinary(func(session *melody.Session, message []byte) { socketOf(session).receivedInGoroutine(message, true) })
	m.HandlePong(func(session *melody.Session) {
		defer s.recoverPanic(session)
		handoff.FrameRead(session.WebsocketConnection())
		socketOf(session).session.control()
	})
	m.HandleSentMessage(func(session *melody.Session, _ []byte) { defer s.recoverPanic(session); socketOf(session).sent() })
	m.HandleSentMessageBinary(func(session *melody.Session, _ []byte) { defer s.recoverPanic(session); socketOf(session).sent() })
	return m
}

// where names this layer in the log lines of recovered panics.
const where = "engineio"

// recoverPanic, deferred in a callback that Melody runs in its own goroutine, recovers a
// panic and closes the socket.
func (s *Server) recoverPanic(session *melody.Session) {
	if value := recover(); value != nil {
		isolate.Recovered(s.config.Logger, where, value)
		_ = session.WebsocketConnection().Close()
	}
}

// receivedInGoroutine handles a frame in a new goroutine and waits for it, so that the
// reading goroutine does not keep the stack that a handler needs.
func (k *socket) receivedInGoroutine(message []byte, binary bool) {
	handoff.FrameRead(k.conn.WebsocketConnection())
	if !binary && len(message) == 1 { // most frames are pongs
		defer k.server.recoverPanic(k.conn)
		k.received(message, false)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer k.server.recoverPanic(k.conn)
		k.received(message, binary)
	}()
	<-done
}

// connected runs before Melody reads or writes.
func (k *socket) connected(conn *melody.Session) {
	r := conn.Request
	conn.Request = nil // Melody no longer needs it, and its headers would be most of a socket's memory
	k.conn = conn
	k.server.open.Add(k)
	handoff.OnPing(conn.WebsocketConnection(), func() bool { return k.session.control() }) // the session is known by then
	if k.session == nil {
		k.session = k.server.begin(r, k)
		return
	}
	s := k.session
	s.mu.Lock()
	refused := s.state != open || s.socket != nil || s.probing != nil
	if !refused {
		s.probing = k
		s.clock.upgrade = time.Now().Add(k.server.config.UpgradeTimeout)
	}
	s.mu.Unlock()
	if refused {
		k.end()
		return
	}
	s.schedule()
}
