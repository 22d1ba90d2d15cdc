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

// closeTokenBroken is what the vendor closes a socket with whose token it does not
// take (measured).
const closeTokenBroken = 4401

const (
	writeTimeout = 5 * time.Second
	closeWait    = 500 * time.Millisecond // for the far end to answer a close frame
)

// errRejected says that the vendor does not take the token.
var errRejected = errors.New("the Shelly Cloud does not take the token")

// errStalled says that we closed the socket because the log did not keep up.
var errStalled = errors.New("the log does not keep up")

// heard is a message and what it took on the wire.
type heard struct {
	message Message
	size    int
}

// socket is an open real-time socket. One goroutine reads it and waits when nobody
// takes what it read, so that a slow log fills the vendor's buffers and not ours.
type socket struct {
	conn   *websocket.Conn
	inbox  chan heard    // closed at the end
	gone   chan struct{} // closed at the end
	stop   chan struct{} // closed by close
	err    error         // why it ended; to be read after gone
	pongs  atomic.Int64
	logger *slog.Logger
}

// dial opens the socket. Its errors are scrubbed: the token is in the URL.
func dial(ctx context.Context, cfg Config, g grant, secret Secret, logger *slog.Logger) (*socket, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.RequestTimeout)
	defer cancel()
	// The library looks at the context's deadline during the handshake, and not at
	// its end: a partition would be lost for long while its socket is still opened.
	// The handshake gets a moment to finish all the same, because a socket can be
	// closed properly only when it is open.
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
	conn, response, err := dialer.DialContext(ctx, g.at.socket+"/shelly/wss/hk_sock?t="+url.QueryEscape(g.token), nil)
	if response != nil && response.Body != nil {
		defer func() { _ = response.Body.Close() }()
	}
	if err != nil {
		if response != nil && (response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden) {
			return nil, fmt.Errorf("cloud: dial: %w (HTTP %d)", errRejected, response.StatusCode)
		}
		return nil, fmt.Errorf("cloud: dial: %s", secret.scrub(err.Error()))
	}
	s := &socket{
		conn: conn, inbox: make(chan heard, cfg.Inbox), gone: make(chan struct{}), stop: make(chan struct{}), logger: logger,
	}
	conn.SetReadLimit(cfg.MaxFrame)
	conn.SetPongHandler(func(string) error {
		s.pongs.Add(1)
		return nil
	})
	go func() {
		if !isolate.Do(logger, where, func() { s.read(cfg.StallAfter, secret) }) {
			_ = conn.Close() // read has closed what others wait for
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
		var m Message
		if err = errors.New("cloud: it is binary"); kind == websocket.TextMessage {
			m, err = Decode(raw)
		}
		if err != nil {
			if refused++; refused == 1 { // one line per socket
				s.logger.Warn("a frame is not understood", "bytes", len(raw), "error", secret.scrub(err.Error()))
			}
			continue
		}
		if s.err = s.pass(heard{m, len(raw)}, stallAfter); s.err != nil {
			return
		}
	}
}

func (s *socket) pass(h heard, stallAfter time.Duration) error {
	select {
	case s.inbox <- h:
		return nil
	default:
	}
	timer := time.NewTimer(stallAfter)
	defer timer.Stop()
	select {
	case s.inbox <- h:
		return nil
	case <-timer.C:
		return errStalled
	case <-s.stop:
		return errClosed
	}
}

// where names this package among the panics that were caught.
const where = "shelly cloud"

// errPanicked says that what the cloud sent made us panic.
var errPanicked = errors.New("a fault of ours")

// errClosed says that we closed the socket.
var errClosed = errors.New("closed by us")

// closeReason puts the end of a socket into words that may be shown.
func closeReason(err error, secret Secret) error {
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &closed) && closed.Code == closeTokenBroken:
		return fmt.Errorf("cloud: read: %w (%d)", errRejected, closed.Code)
	case errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure:
		return fmt.Errorf("cloud: read: closed by the Shelly Cloud with %d %s", closed.Code, secret.scrub(closed.Text))
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

// close ends the socket and waits until it is read no more. It gives the far end a
// moment to answer: then a socket that follows is surely the only one.
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
	for range s.inbox { // the reader may be about to put one in
	}
	<-s.gone
}
