package shellycloud

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// socket is one real-time socket. Frames wait in a queue, so that a reader that
// is slow holds nobody up; one that is too slow is broken off.
type socket struct {
	conn    atomic.Pointer[websocket.Conn] // nil while shaking hands
	account *Account
	out     chan []byte
	ended   chan struct{}
	endOnce sync.Once
}

const (
	queueFrames = 8192
	patience    = 10 * time.Second // for a write
)

func (c *Cloud) serveSocket(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("t")
	c.mu.Lock()
	t := c.tokens[token]
	good := t != nil && !t.account.revoked && tokenIsFor(t, r)
	if t != nil {
		t.account.counts.Dials++
	}
	closeAfter := time.Duration(-1)
	if good && !time.Now().Before(t.ends) {
		closeAfter = c.cfg.AcceptExpired
		good = closeAfter > 0
	}
	refuse := c.cfg.RefuseWith
	c.mu.Unlock()
	if !good && refuse < 1000 {
		http.Error(w, "Unauthorized", refuse)
		return
	}
	if !good {
		if conn, err := c.upgrader.Upgrade(w, r, nil); err == nil {
			closeWith(conn, refuse, "Token-Broken")
			_ = conn.Close()
		}
		return
	}
	// The socket counts before the client can know that it is open: nothing that
	// happens from then on is lost.
	s := &socket{account: t.account, out: make(chan []byte, queueFrames), ended: make(chan struct{})}
	if !s.open() {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	defer s.forget()
	conn, err := c.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	s.conn.Store(conn)
	select {
	case <-s.ended:
		_ = conn.Close()
		return
	default:
	}
	var writing sync.WaitGroup
	writing.Go(func() { s.write(conn) })
	if closeAfter > 0 {
		timer := time.AfterFunc(closeAfter, func() { s.account.set(func() { s.bye(1000, "") }) })
		defer timer.Stop()
	}
	s.read(conn)
	s.end()
	writing.Wait()
}

// open counts the socket, unless an outage began meanwhile.
func (s *socket) open() bool {
	a := s.account
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	if a.cloud.outage {
		return false
	}
	a.sockets[s] = struct{}{}
	a.counts.Most = max(a.counts.Most, len(a.sockets))
	return true
}

func (s *socket) forget() { s.account.set(func() { delete(s.account.sockets, s) }) }

func (s *socket) read(conn *websocket.Conn) {
	// The socket does not count any more as soon as the client has said goodbye:
	// before it is answered.
	conn.SetCloseHandler(func(code int, _ string) error {
		s.forget()
		closeWith(conn, code, "")
		return nil
	})
	conn.SetPingHandler(func(data string) error {
		deaf := false
		s.account.set(func() { deaf = s.account.deaf })
		if deaf {
			return nil
		}
		_ = conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		return nil
	})
	conn.SetReadLimit(1 << 20)
	for {
		kind, raw, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if kind != websocket.TextMessage {
			closeWith(conn, websocket.CloseUnsupportedData, "")
			return
		}
		s.account.command(s, raw)
	}
}

func (s *socket) write(conn *websocket.Conn) {
	for {
		select {
		case frame := <-s.out:
			_ = conn.SetWriteDeadline(time.Now().Add(patience))
			if conn.WriteMessage(websocket.TextMessage, frame) != nil {
				s.end()
				return
			}
		case <-s.ended:
			return
		}
	}
}

// send puts a frame into the queue. cloud.mu is held.
func (s *socket) send(frame []byte) {
	select {
	case s.out <- frame:
	default:
		s.cut()
	}
}

// cut ends the socket without a word. It counts no more: whoever notices may open
// another at once. cloud.mu is held.
func (s *socket) cut() {
	delete(s.account.sockets, s)
	s.end()
}

// bye sends a close frame and ends the socket. What waits is lost. cloud.mu is held.
func (s *socket) bye(code int, text string) {
	if conn := s.conn.Load(); conn != nil {
		closeWith(conn, code, text)
	}
	s.cut()
}

// end closes what there is to close.
func (s *socket) end() {
	s.endOnce.Do(func() {
		close(s.ended)
		if conn := s.conn.Load(); conn != nil {
			_ = conn.Close()
		}
	})
}

func closeWith(conn *websocket.Conn, code int, text string) {
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(time.Second))
}
