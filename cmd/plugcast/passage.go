package main

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// passage is the response to a request that is passed on to a peer. A client that
// neither sends what it began nor takes what it asked for holds it up for
// passageTimeout, and little beyond the end of the context: only deadlines end a
// read and a write of net/http.
type passage struct {
	http.ResponseWriter
	stop func() bool // ends the watch on the context

	mu   sync.Mutex
	over bool
	conn deadlines // the client's
}

const (
	passageTimeout = 30 * time.Second // for the body of a request, and for one write, as where the session is
	passageEnd     = time.Second      // for what is said at the end
)

type deadlines interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// newPassage begins one that ends with ctx. The caller has to call done.
func newPassage(ctx context.Context, w http.ResponseWriter, r *http.Request) *passage {
	p := &passage{ResponseWriter: w, conn: http.NewResponseController(w)} // in a test there may be no deadlines
	if r.ContentLength != 0 {
		_ = p.conn.SetReadDeadline(time.Now().Add(passageTimeout)) // net/http puts it off for the next request
	}
	p.stop = context.AfterFunc(ctx, p.end)
	return p
}

// end ends what is being read and written, in a moment.
func (p *passage) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	soon := time.Now().Add(passageEnd)
	_ = p.conn.SetReadDeadline(soon)
	_ = p.conn.SetWriteDeadline(soon)
}

// writes sets the deadline of the write that follows; the one of end stays.
func (p *passage) writes(conn deadlines) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		_ = conn.SetWriteDeadline(time.Now().Add(passageTimeout))
	}
}

// done sends what is left, and leaves the connection to the next request.
func (p *passage) done() {
	control, response := p.conn.(*http.ResponseController)
	if response {
		_ = control.Flush() // a client that is gone needs none
	}
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if response && !p.over {
		_ = control.SetWriteDeadline(time.Time{})
	}
}

// Write implements [http.ResponseWriter].
func (p *passage) Write(b []byte) (int, error) {
	p.writes(p.conn)
	return p.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (p *passage) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// Hijack implements [http.Hijacker].
func (p *passage) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(p.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	p.conn = conn
	over := p.over
	p.mu.Unlock()
	if over {
		p.end() // net/http has put the deadlines off
	}
	return &passed{conn, p}, buffered, nil
}

// passed is the connection of a WebSocket that is passed on.
type passed struct {
	net.Conn
	passage *passage
}

// Write implements [net.Conn].
func (c *passed) Write(b []byte) (int, error) {
	c.passage.writes(c.Conn)
	return c.Conn.Write(b)
}
