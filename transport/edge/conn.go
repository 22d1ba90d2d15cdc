package edge

import (
	"container/list"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// piece is how many bytes of an answer the client may take WriteTimeout for.
const piece = 64 << 10

// conn is a client's connection. Until a face takes it over, or sets a write
// deadline of its own, each piece of an answer has a deadline, also a piece that
// net/http writes after the handler has returned.
//
// The TCP connection is embedded and not only held, because net.Buffers writes in
// one system call only to a type that has its methods.
type conn struct {
	*net.TCPConn
	limiter *limiter
	source  string // the source that the connection counts for; "" for a trusted proxy
	timeout time.Duration
	release sync.Once

	taken atomic.Bool // a face has it; net/http does not write to it any more

	mu  sync.Mutex // held while a deadline is set
	own bool       // the handler has set a write deadline

	// Guarded by the limiter's lock.
	waiting, waitingAt *list.Element // among the connections without a request
	since              time.Time     // when it began to be one of them
	client             string        // the source that a proxied connection also counts for, once it is taken over
	gone               bool
}

// TCP is the connection below, for a face that takes it over.
func (c *conn) TCP() *net.TCPConn { return c.TCPConn }

// Write implements [net.Conn].
func (c *conn) Write(b []byte) (written int, err error) {
	if c.taken.Load() {
		return c.TCPConn.Write(b)
	}
	for {
		part := b[written:min(written+piece, len(b))]
		if err := c.progress(); err != nil {
			return written, err
		}
		n, err := c.TCPConn.Write(part)
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

// progress gives the client time for the next piece, unless the handler has said
// how much there is.
func (c *conn) progress() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own {
		return nil
	}
	return c.TCPConn.SetWriteDeadline(time.Now().Add(c.timeout))
}

// ReadFrom implements [io.ReaderFrom]: the embedded connection's would pass Write
// by.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{c}, r) }

// SetWriteDeadline implements [net.Conn]. With no deadline the pieces have theirs
// again.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = !t.IsZero()
	return c.TCPConn.SetWriteDeadline(t)
}

// SetDeadline implements [net.Conn].
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = !t.IsZero()
	return c.TCPConn.SetDeadline(t)
}

// Close implements [net.Conn]. The connection counts until then, also after a face took it over.
func (c *conn) Close() error {
	err := c.TCPConn.Close()
	c.release.Do(func() { c.limiter.closed(c) })
	return err
}
