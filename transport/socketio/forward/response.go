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
	one := &response{ResponseWriter: w, conn: http.NewResponseController(w)} // in a test there may be no deadlines
	if r.ContentLength != 0 {
		_ = one.conn.SetReadDeadline(time.Now().Add(proxyTimeout)) // net/http puts it off for the next request
	}
	one.stop = context.AfterFunc(ctx, one.end)
	return one
}

// end ends what is being read and written, in a moment.
func (r *response) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	soon := time.Now().Add(proxyEnd)
	_ = r.conn.SetReadDeadline(soon)
	_ = r.conn.SetWriteDeadline(soon)
}

// writes sets the deadline of the write that follows; the one of end stays.
func (r *response) writes(conn deadlines) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		_ = conn.SetWriteDeadline(time.Now().Add(proxyTimeout))
	}
}

// done sends what is left, and leaves the connection to the next request.
func (r *response) done() {
	control, isResponse := r.conn.(*http.ResponseController)
	if isResponse {
		_ = control.Flush() // a client that is gone needs none
	}
	r.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	if isResponse && !r.over {
		_ = control.SetWriteDeadline(time.Time{})
	}
}

// Write implements [http.ResponseWriter].
func (r *response) Write(b []byte) (int, error) {
	r.writes(r.conn)
	return r.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack implements [http.Hijacker].
func (r *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	r.conn = conn
	over := r.over
	r.mu.Unlock()
	if over {
		r.end() // net/http has put the deadlines off
	}
	return &proxiedConn{conn, r}, buffered, nil
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
