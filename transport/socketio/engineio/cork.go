package engineio

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"
)

// maxCorked limits the bytes that a cork holds back.
const maxCorked = 16 << 10

// cork is a connection that holds a write back while another is known to follow. Each packet
// is a WebSocket frame, and a system call per frame is expensive when a batch of events goes
// out.
//
// The WebSocket library calls Write from one goroutine at a time.
type cork struct {
	net.Conn
	more atomic.Bool // another write certainly follows soon
	held []byte
}

// NetConn returns the underlying connection, for package handoff.
func (c *cork) NetConn() net.Conn { return c.Conn }

// Write implements [net.Conn].
func (c *cork) Write(b []byte) (int, error) {
	if c.more.Load() && len(c.held)+len(b) <= maxCorked {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	if len(c.held) == 0 {
		return c.Conn.Write(b)
	}
	held := len(c.held)
	all := append(c.held, b...)
	c.held = nil // most connections are idle most of the time
	n, err := c.Conn.Write(all)
	return max(0, n-held), err
}

// corking is a response whose connection gets a cork when it is hijacked.
type corking struct {
	http.ResponseWriter
	socket *socket
}

// Hijack implements [http.Hijacker].
func (c corking) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	c.socket.cork = &cork{Conn: conn}
	return c.socket.cork, buffered, nil
}
