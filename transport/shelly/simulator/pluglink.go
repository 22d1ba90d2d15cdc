package simulator

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// plugDialer is shared by all plugs: thousands of them write through a few buffers.
var plugDialer = websocket.Dialer{
	HandshakeTimeout: 10 * time.Second,
	ReadBufferSize:   1 << 10,
	WriteBufferSize:  1 << 10,
	WriteBufferPool:  new(sync.Pool),
}

// plugLink is the goroutine that dials and then reads; Run is the one that
// writes. A plug has no other.
type plugLink struct {
	plug    *Plug
	opened  chan *websocket.Conn // has room for one
	done    chan struct{}
	leaving atomic.Bool // the plug closes the socket itself
	keep    atomic.Bool // the socket stays open after the link
}

// run ends when the socket does, or with ctx.
func (l *plugLink) run(ctx context.Context, url string) {
	defer close(l.done)
	p := l.plug
	p.dials.Add(1)
	conn, response, err := plugDialer.DialContext(ctx, url, nil)
	if err != nil {
		if response != nil {
			p.problem.Store(nil)
			p.refuse(response.StatusCode)
		} else if ctx.Err() == nil {
			p.problem.Store(&err)
		}
		p.cfg.Logger.Debug("plug cannot connect", "device", p.cfg.ID, "error", err)
		return
	}
	p.problem.Store(nil)
	// A deadline ends the reading and leaves the socket as it is.
	interrupt := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer interrupt()
	l.opened <- conn
	conn.SetReadLimit(64 << 10)
	conn.SetPingHandler(func(data string) error {
		if !p.heed(ctx) {
			return ctx.Err()
		}
		p.mu.Lock()
		lives := p.lives()
		p.mu.Unlock()
		if !lives {
			return nil
		}
		_ = conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second)) // reading finds out
		return nil
	})
	for {
		_, raw, err := conn.ReadMessage()
		if err != nil {
			l.ended(err)
			break
		}
		if !p.heed(ctx) {
			break
		}
		p.hear(raw)
	}
	if !l.keep.Load() {
		_ = conn.Close()
	}
}

// ended notes why a socket ended, if the server said so.
func (l *plugLink) ended(err error) {
	end := new(websocket.CloseError)
	if !errors.As(err, &end) || end.Code == websocket.CloseAbnormalClosure || l.leaving.Load() {
		return
	}
	l.plug.refuse(end.Code)
	l.plug.cfg.Logger.Debug("plug was closed", "device", l.plug.cfg.ID, "code", end.Code, "reason", end.Text)
}

// lives reports whether what is on the socket still reaches the plug: not once its
// power was cut, also when it is back, because then it has another socket. The
// caller holds mu.
func (p *Plug) lives() bool { return p.powered && p.ending != plugDies }

// heed waits while the plug is frozen. It answers false when ctx ended.
func (p *Plug) heed(ctx context.Context) bool {
	p.mu.Lock()
	thaw := p.thaw
	p.mu.Unlock()
	if thaw == nil {
		return ctx.Err() == nil
	}
	select {
	case <-thaw:
		return true
	case <-ctx.Done():
		return false
	}
}

// abortPlug closes a connection with a reset, and without a close frame.
func abortPlug(conn *websocket.Conn) {
	raw := conn.NetConn()
	if secure, ok := raw.(interface{ NetConn() net.Conn }); ok {
		raw = secure.NetConn()
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // without it, the peer gets an orderly end
	}
	_ = raw.Close()
}
