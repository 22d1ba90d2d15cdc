package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain/isolate"
)

// closeTokenBroken is the code with which the vendor closes a socket whose token it
// rejects (measured).
const closeTokenBroken = 4401

const (
	writeTimeout = 5 * time.Second
	closeWait    = 500 * time.Millisecond // for the far end to answer a close frame
)

// Why a socket ended.
var (
	errRejected = errors.New("the Shelly Cloud does not take the token")
	errStalled  = errors.New("the log does not keep up") // we closed the socket for that
	errClosed   = errors.New("closed by us")
	errPanicked = errors.New("a fault of ours") // a frame made us panic
)

// where names this package in the log of caught panics.
const where = "shelly cloud"

// received is a message and its size on the wire, in bytes.
type received struct {
	message message
	size    int
}

// socket is an open real-time socket. One goroutine reads it. The goroutine stops
// reading while nobody takes the messages, so that a slow log fills the vendor's
// buffers and not ours.
type socket struct {
	conn   *websocket.Conn
	inbox  chan received // closed at the end
	gone   chan struct{} // closed at the end
	stop   chan struct{} // closed by close
	err    error         // why it ended; valid when gone is closed
	pongs  atomic.Int64
	logger *slog.Logger
}

// dial opens the socket. Its errors are scrubbed, because the URL has the token.
func dial(ctx context.Context, cfg Config, g grant, secret Secret, logger *slog.Logger) (*socket, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.RequestTimeout)
	defer cancel()
	// During the handshake the library heeds ctx's deadline but not its end, which
	// would let a lost partition open its socket for long. The handshake still gets a
	// moment to finish, because only an open socket can be closed properly.
	done := func() bool { return true }
	defer func() { done() }()
	dialer := websocket.Dialer{
		Proxy: http.ProxyFromEnvironment,
		NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil {
				done = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now().Add(closeWait)) })
			}
			return conn, err
		},
	}
	conn, answer, err := dialer.DialContext(ctx, g.at.socket+"/shelly/wss/hk_sock?t="+url.QueryEscape(g.token), nil)
	if answer != nil && answer.Body != nil {
		defer func() { _ = answer.Body.Close() }()
	}
	if err != nil {
		if answer != nil && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) {
			return nil, fmt.Errorf("cloud: dial: %w (HTTP %d)", errRejected, answer.StatusCode)
		}
		return nil, fmt.Errorf("cloud: dial: %s", secret.scrub(err.Error()))
	}
	s := &socket{
		conn: conn, inbox: make(chan received, cfg.Inbox), gone: make(chan struct{}), stop: make(chan struct{}), logger: logger,
	}
	conn.SetReadLimit(cfg.MaxFrame)
	conn.SetPongHandler(func(string) error {
		s.pongs.Add(1)
		return nil
	})
	go func() {
		if !isolate.Do(logger, where, func() { s.read(cfg.StallAfter, secret) }) {
			_ = conn.Close() // read has closed the channels that others wait for
		}
	}()
	return s, nil
}

func (s *socket) read(stallAfter time.Duration, secret Secret) {
	defer close(s.inbox)
	defer close(s.gone)
	s.err = errPanicked // unless it ends in another way
	refused := 0
	for {
		kind, raw, err := s.conn.ReadMessage()
		if err != nil {
			s.err = closeReason(err, secret)
			return
		}
		var m message
		if err = errors.New("cloud: the frame is binary"); kind == websocket.TextMessage {
			m, err = decode(raw)
		}
		if err != nil {
			if refused++; refused == 1 { // one line per socket
				s.logger.Warn("cannot decode a frame", "bytes", len(raw), "error", secret.scrub(err.Error()))
			}
			continue
		}
		if s.err = s.pass(received{m, len(raw)}, stallAfter); s.err != nil {
			return
		}
	}
}

// pass puts a message into the inbox. It fails when the inbox stays full for
// stallAfter, or when the socket is closed.
func (s *socket) pass(r received, stallAfter time.Duration) error {
	select {
	case s.inbox <- r:
		return nil
	default:
	}
	timer := time.NewTimer(stallAfter)
	defer timer.Stop()
	select {
	case s.inbox <- r:
		return nil
	case <-timer.C:
		return errStalled
	case <-s.stop:
		return errClosed
	}
}

// closeReason turns the end of a socket into an error without secrets.
func closeReason(err error, secret Secret) error {
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &closed) && closed.Code == closeTokenBroken:
		return fmt.Errorf("cloud: read: %w (%d)", errRejected, closed.Code)
	case errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure:
		return fmt.Errorf("cloud: read: the Shelly Cloud closed it with %d %s", closed.Code, secret.scrub(closed.Text))
	}
	return fmt.Errorf("cloud: read: %s", secret.scrub(err.Error()))
}

// write sends a text frame. One goroutine at a time may call it.
func (s *socket) write(frame []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return s.conn.WriteMessage(websocket.TextMessage, frame)
}

func (s *socket) ping() error {
	return s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout))
}

// close closes the socket and waits until its reader has ended. It gives the far end
// a moment to answer, so that the next socket is certainly the only one.
func (s *socket) close() {
	close(s.stop)
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if s.conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(closeWait)) == nil {
		timer := time.NewTimer(closeWait)
		select {
		case <-s.gone:
		case <-timer.C:
		}
		timer.Stop()
	}
	_ = s.conn.Close()
	for range s.inbox { // the reader may be about to put a message in
	}
	<-s.gone
}
