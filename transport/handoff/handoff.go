// Package handoff takes the connections of WebSocket requests over from net/http for
// servers that use Melody. So a socket costs little memory while it is open, and the client
// gets the last frame when it is closed. The package also tracks a server's open
// connections for its shutdown.
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

// Serve runs upgrade in a new goroutine, and returns when the connection was taken over or
// upgrade has returned. open counts that goroutine until upgrade returns, and the connection
// until it is finally closed. The caller must be counted itself until Serve returns. If
// upgrade panics, the connection is closed.
func Serve(w http.ResponseWriter, open *Group, logger *slog.Logger, upgrade func(w http.ResponseWriter)) {
	open.AddMember()
	h := &handoff{ResponseWriter: w, hijacked: make(chan struct{}), open: open}
	over := make(chan struct{})
	go func() {
		defer open.Leave()
		defer close(over)
		if !isolate.Do(logger, "handoff", func() { upgrade(h) }) && h.conn != nil {
			_ = h.conn.Close()
		}
	}()
	select {
	case <-h.hijacked:
	case <-over: // the handshake was bad, and has been answered
	}
}

// handoff is a response whose connection outlives the request's goroutine.
//
// Melody reads a socket in the goroutine that calls HandleRequest. If that were the
// request's own goroutine, net/http's two 4 KiB buffers, the stack and the request would
// stay in memory as long as the socket: 14 KiB without any use.
type handoff struct {
	http.ResponseWriter
	hijacked chan struct{} // closed when the connection was taken over
	open     *Group
	conn     net.Conn // the connection after that; only for the goroutine that runs upgrade
}

const (
	readBuffer      = 512 // bytes: clients send little, and long reads bypass the buffer
	handshakeBuffer = 256 // bytes: the library uses it for the response, and grows it
)

// Hijack implements [http.Hijacker], for the WebSocket library.
func (h *handoff) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	defer close(h.hijacked)
	if buffered.Reader.Buffered() > 0 {
		return conn, buffered, nil // the client sent frames before the handshake; the library refuses that
	}
	tcp := tcpOf(conn)
	if tcp == nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("handoff: %T is not a TCP connection", conn)
	}
	h.open.AddMember()
	lingering := &lingeringConn{TCPConn: tcp, outer: conn, closed: h.open.Leave}
	h.conn = lingering
	return lingering, bufio.NewReadWriter(bufio.NewReaderSize(lingering, readBuffer), bufio.NewWriterSize(lingering, handshakeBuffer)), nil
}

// tcpOf returns the TCP connection that conn is or wraps, or nil.
func tcpOf(conn net.Conn) *net.TCPConn {
	switch c := conn.(type) {
	case *net.TCPConn:
		return c
	case interface{ TCP() *net.TCPConn }:
		return c.TCP()
	}
	return nil
}

// lingeringConn is a connection whose Close lets the peer receive what was sent.
//
// If a socket is closed with unread input, the kernel sends a reset, and the peer's kernel
// then discards data that the peer has not read: the close frame with its reason. So Close
// first closes the writing side, and then reads and drops input for a while.
//
// The TCP connection is embedded because net.Buffers writes a frame's head and its
// data in one system call only to a type that has its methods.
type lingeringConn struct {
	*net.TCPConn
	outer    net.Conn // net/http's connection, whose Close also ends its accounting
	closed   func()   // called when the connection is finally closed
	closing  atomic.Bool
	unframed atomic.Int64 // bytes read since the last complete frame
	mu       sync.Mutex   // held while the read deadline is set, so that Close sets the last one
}

const (
	drainTime = time.Second
	maxDrain  = 256 << 10 // bytes
)

// Read implements [net.Conn]. During the closing it returns no data.
func (c *lingeringConn) Read(b []byte) (int, error) {
	if c.closing.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.TCPConn.Read(b)
	if c.closing.Load() {
		return 0, net.ErrClosed
	}
	if c.unframed.Add(int64(n)) > maxUnframed {
		_ = c.Close()
		return 0, errFragments
	}
	return n, err
}

// maxUnframed bounds the input without a complete frame, in bytes: several times the largest
// frame of any face. The library bounds the content of a frame, but not the number of its
// empty fragments.
const maxUnframed = 2 << 20

var errFragments = errors.New("handoff: a frame has too many fragments")

// FrameRead reports that a complete frame was read. Its face counts the frame.
func FrameRead(conn *websocket.Conn) {
	below := conn.NetConn()
	if wrapped, ok := below.(interface{ NetConn() net.Conn }); ok {
		below = wrapped.NetConn()
	}
	if c, ok := below.(*lingeringConn); ok {
		c.unframed.Store(0)
	}
}

// SetReadDeadline implements [net.Conn]. It fails during the closing, because the reader must
// not extend the deadline that Close has set.
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
		_ = c.outer.Close()
		c.closed()
		return nil
	}
	_ = c.TCPConn.SetReadDeadline(time.Now()) // interrupts a pending Read
	go c.drain()                              // calls nothing that can panic
	return nil
}

func (c *lingeringConn) drain() {
	defer c.closed()
	defer c.outer.Close()
	_ = c.TCPConn.SetReadDeadline(time.Now().Add(drainTime))
	var buf [2048]byte
	for left := maxDrain; left > 0; {
		n, err := c.TCPConn.Read(buf[:])
		if err != nil {
			return
		}
		left -= n
	}
}

// pongWait is how long a pong may wait for a frame that is being written.
const pongWait = time.Second

// OnPing calls answer for each ping, in the reading goroutine, and sends a pong if answer
// returns true. Without it, the library answers every ping without limit.
func OnPing(conn *websocket.Conn, answer func() bool) {
	conn.SetPingHandler(func(data string) error {
		if FrameRead(conn); !answer() {
			return nil
		}
		// A pong that cannot be written is like a lost one, and a broken connection ends by
		// itself.
		_ = conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(pongWait))
		return nil
	})
}
