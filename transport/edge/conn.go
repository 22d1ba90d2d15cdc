package edge

import (
	"container/list"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// chunk is how many bytes of a response the client may take WriteTimeout for.
const chunk = 64 << 10

// conn is a client's connection. Each chunk of a response has a deadline, even those that
// net/http writes after the handler has returned, until a face takes the connection over or
// sets a write deadline of its own.
//
// The TCP connection is embedded because net.Buffers writes in one system call only to a
// type that has its methods.
type conn struct {
	*net.TCPConn
	limiter *limiter
	source  string // the source that the connection counts towards; "" for a trusted proxy
	timeout time.Duration
	release sync.Once

	hijacked atomic.Bool // a face has taken it over; net/http no longer writes to it

	mu             sync.Mutex // held while a deadline is set
	customDeadline bool       // the handler has set a write deadline

	// Guarded by the limiter's lock.
	waiting, waitingAt *list.Element // in the lists of connections without a request
	since              time.Time     // when it was added to them
	client             string        // the client that a hijacked connection of a proxy also counts towards
	closed             bool
}

// TCP returns the underlying connection, for a face that takes it over.
func (c *conn) TCP() *net.TCPConn { return c.TCPConn }

// Write implements [net.Conn].
func (c *conn) Write(b []byte) (written int, err error) {
	if c.hijacked.Load() {
		return c.TCPConn.Write(b)
	}
	for {
		part := b[written:min(written+chunk, len(b))]
		if err := c.extend(); err != nil {
			return written, err
		}
		n, err := c.TCPConn.Write(part)
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

// extend gives the client time for the next chunk, unless the handler has set a deadline.
func (c *conn) extend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.customDeadline {
		return nil
	}
	return c.TCPConn.SetWriteDeadline(time.Now().Add(c.timeout))
}

// ReadFrom implements [io.ReaderFrom]. The embedded connection's would bypass Write.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{c}, r) }

// SetWriteDeadline implements [net.Conn]. A zero time restores the deadlines per chunk.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.customDeadline = !t.IsZero()
	return c.TCPConn.SetWriteDeadline(t)
}

// SetDeadline implements [net.Conn].
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.customDeadline = !t.IsZero()
	return c.TCPConn.SetDeadline(t)
}

// Close implements [net.Conn]. The connection counts until then, even after a face took it
// over.
func (c *conn) Close() error {
	err := c.TCPConn.Close()
	c.release.Do(func() { c.limiter.closed(c) })
	return err
}
