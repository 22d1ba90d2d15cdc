// Package handoff takes the connections of WebSocket requests over from net/http,
// for the faces that are built on Melody: so that a socket costs little while it
// is open, and gets its last frame when it is closed.
package handoff

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain/isolate"
)

// Serve upgrades a request in a goroutine of its own, by calling upgrade, and
// returns when the connection was taken over or upgrade is done. open counts what
// lives on: the goroutine until upgrade returns, and the connection until it is
// closed for good. The caller is counted itself, until Serve returns. When upgrade
// panics the connection is closed.
func Serve(w http.ResponseWriter, open *Open, logger *slog.Logger, upgrade func(w http.ResponseWriter)) {
	open.Also()
	h := &handoff{ResponseWriter: w, taken: make(chan struct{}), open: open}
	over := make(chan struct{})
	go func() {
		defer open.Leave()
		defer close(over)
		if !isolate.Do(logger, "handoff", func() { upgrade(h) }) && h.conn != nil {
			_ = h.conn.Close()
		}
	}()
	select {
	case <-h.taken:
	case <-over: // a bad handshake: it was answered
	}
}

// handoff is a response whose connection is kept while the request's goroutine
// returns.
//
// Melody reads a socket in the goroutine that calls HandleRequest. If that is
// the request's, net/http's two 4 KiB buffers, its stack and the request live as
// long as the socket: 14 KiB that nobody uses.
type handoff struct {
	http.ResponseWriter
	taken chan struct{} // closed when the connection was taken over
	open  *Open
	conn  net.Conn // what was taken over; of the goroutine that upgrades
}

const (
	readBuffer      = 512 // bytes: clients send little, and long reads go around it
	handshakeBuffer = 256 // bytes: the library wants one for its answer, which grows
)

// Hijack implements [http.Hijacker], for the WebSocket library.
func (h *handoff) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	defer close(h.taken)
	if buffered.Reader.Buffered() > 0 {
		return conn, buffered, nil // frames before the handshake is over: the library refuses that
	}
	tcp := tcpOf(conn)
	if tcp == nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("handoff: %T is no TCP connection", conn)
	}
	h.open.Also()
	lingering := &lingeringConn{TCPConn: tcp, whole: conn, closed: h.open.Leave}
	h.conn = lingering
	return lingering, bufio.NewReadWriter(bufio.NewReaderSize(lingering, readBuffer), bufio.NewWriterSize(lingering, handshakeBuffer)), nil
}

// tcpOf is the TCP connection that a server's connection is or, as it says itself,
// stands for; nil when there is none.
func tcpOf(conn net.Conn) *net.TCPConn {
	switch c := conn.(type) {
	case *net.TCPConn:
		return c
	case interface{ TCP() *net.TCPConn }:
		return c.TCP()
	}
	return nil
}

// lingeringConn is a connection that closes so that the peer gets what was sent.
//
// Closing a socket while there is something unread in it makes the kernel send a
// reset, which makes the peer's kernel throw away what the peer has not read:
// the close frame, and with it the reason. So the writing side is closed first,
// and what the peer still sends is read, for a while.
//
// The TCP connection is embedded because net.Buffers writes a frame's head and its
// data in one system call only to a type that has its methods.
type lingeringConn struct {
	*net.TCPConn
	whole   net.Conn // what net/http gave: its Close counts the connection out
	closed  func()   // told when the connection is closed for good
	closing atomic.Bool
	pieces  atomic.Int64 // bytes that were read since the last whole frame
	mu      sync.Mutex   // held while the read deadline is set: the last one is the closing's
}

const (
	drainFor  = time.Second
	drainMost = 256 << 10 // bytes
)

// Read implements [net.Conn]. What comes during the closing is not for the
// reader.
func (c *lingeringConn) Read(b []byte) (int, error) {
	if c.closing.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.TCPConn.Read(b)
	if c.closing.Load() {
		return 0, net.ErrClosed
	}
	if c.pieces.Add(int64(n)) > mostPieces {
		_ = c.Close()
		return 0, errPieces
	}
	return n, err
}

// mostPieces bounds what a client may send before a whole frame came of it, in
// bytes: several times the largest frame of any face. The library bounds the content
// of a frame, and not in how many empty pieces it comes.
const mostPieces = 2 << 20

var errPieces = errors.New("handoff: a frame in too many pieces")

// Whole says that a whole frame came, which its face counts.
func Whole(conn *websocket.Conn) {
	below := conn.NetConn()
	if wrapped, ok := below.(interface{ NetConn() net.Conn }); ok {
		below = wrapped.NetConn()
	}
	if c, ok := below.(*lingeringConn); ok {
		c.pieces.Store(0)
	}
}

// SetReadDeadline implements [net.Conn]. The reader may be about to put its
// deadline off while the connection is being closed: that comes too late.
func (c *lingeringConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing.Load() {
		return net.ErrClosed
	}
	return c.TCPConn.SetReadDeadline(t)
}

// Close implements [net.Conn]. It does not wait. Closing twice is fine.
func (c *lingeringConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing.CompareAndSwap(false, true) {
		return nil
	}
	if c.TCPConn.CloseWrite() != nil {
		_ = c.whole.Close()
		c.closed()
		return nil
	}
	_ = c.TCPConn.SetReadDeadline(time.Now()) // interrupts a pending Read
	go c.drain()                              // it calls nothing that could panic
	return nil
}

func (c *lingeringConn) drain() {
	defer c.closed()
	defer c.whole.Close()
	_ = c.TCPConn.SetReadDeadline(time.Now().Add(drainFor))
	var buf [2048]byte
	for left := drainMost; left > 0; {
		n, err := c.TCPConn.Read(buf[:])
		if err != nil {
			return
		}
		left -= n
	}
}

// pongWait is how long the answer to a ping may wait for a frame that is being
// written.
const pongWait = time.Second

// OnPing has answer called with each ping, in the reading goroutine. A pong follows
// if it is true. The library by itself answers every ping, however many there are.
func OnPing(conn *websocket.Conn, answer func() bool) {
	conn.SetPingHandler(func(data string) error {
		if Whole(conn); !answer() {
			return nil
		}
		// One that cannot be written is like one that was lost on the way: a connection
		// that is broken ends by itself.
		_ = conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(pongWait))
		return nil
	})
}
