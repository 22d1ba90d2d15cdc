package forward

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// response is the response to a request that is passed on to a peer. A client that
// neither sends what it began nor takes what it asked for holds it up for
// proxyTimeout, and little beyond the end of the context: only deadlines end a
// read and a write of net/http.
type response struct {
	http.ResponseWriter
	stop func() bool // ends the watch on the context

	mu   sync.Mutex
	over bool
	conn deadlines // the client's
}

const (
	proxyTimeout = 30 * time.Second // for the body of a request, and for one write, as where the session is
	proxyEnd     = time.Second      // for what is said at the end
)

type deadlines interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// newResponse begins one that ends with ctx. The caller has to call done.
func newResponse(ctx context.Context, w http.ResponseWriter, r *http.Request) *response {
	p := &response{ResponseWriter: w, conn: http.NewResponseController(w)} // in a test there may be no deadlines
	if r.ContentLength != 0 {
		_ = p.conn.SetReadDeadline(time.Now().Add(proxyTimeout)) // net/http puts it off for the next request
	}
	p.stop = context.AfterFunc(ctx, p.end)
	return p
}

// end ends what is being read and written, in a moment.
func (p *response) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	soon := time.Now().Add(proxyEnd)
	_ = p.conn.SetReadDeadline(soon)
	_ = p.conn.SetWriteDeadline(soon)
}

// writes sets the deadline of the write that follows; the one of end stays.
func (p *response) writes(conn deadlines) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		_ = conn.SetWriteDeadline(time.Now().Add(proxyTimeout))
	}
}

// done sends what is left, and leaves the connection to the next request.
func (p *response) done() {
	control, isResponse := p.conn.(*http.ResponseController)
	if isResponse {
		_ = control.Flush() // a client that is gone needs none
	}
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if isResponse && !p.over {
		_ = control.SetWriteDeadline(time.Time{})
	}
}

// Write implements [http.ResponseWriter].
func (p *response) Write(b []byte) (int, error) {
	p.writes(p.conn)
	return p.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (p *response) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// Hijack implements [http.Hijacker].
func (p *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
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
	return &proxiedConn{conn, p}, buffered, nil
}

// proxiedConn is the connection of a WebSocket that is passed on.
type proxiedConn struct {
	net.Conn
	response *response
}

// Write implements [net.Conn].
func (c *proxiedConn) Write(b []byte) (int, error) {
	c.response.writes(c.Conn)
	return c.Conn.Write(b)
}
