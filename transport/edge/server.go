package edge

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Server is an HTTP server that limits the resources of its clients.
type Server struct {
	config  Config
	limiter limiter
	http    *http.Server
	refusal chan struct{} // limits how many refused clients are waited for at the same time
}

// New makes a Server for a handler. It serves after [Server.Serve] is called.
func New(config Config, handler http.Handler) (*Server, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	c := config.withDefaults()
	s := &Server{config: c, refusal: make(chan struct{}, refusalsAtOnce)}
	s.limiter = limiter{maxTotal: c.MaxConnections, maxPer: c.MaxPerAddress, sources: map[string]*source{}}
	s.http = &http.Server{
		Handler:           s.bounded(handler),
		ReadHeaderTimeout: c.HeaderTimeout,
		// net/http reads the rest of a body before it responds, whatever the handler did, and
		// has no other deadline for that.
		ReadTimeout:    c.BodyTimeout,
		IdleTimeout:    c.IdleTimeout,
		MaxHeaderBytes: c.MaxHeader,
		ConnContext:    func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState:      s.changed,
		// net/http logs here what clients send wrongly.
		ErrorLog: slogLogger(c.Logger),
		// The handler gets OPTIONS * as well.
		DisableGeneralOptionsHandler: true,
	}
	return s, nil
}

type connKey struct{}

// Serve accepts connections until Shutdown or Close is called, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(&listener{Listener: l, server: s}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown lets requests in progress finish, like [http.Server.Shutdown].
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close closes all connections that no face has taken over.
func (s *Server) Close() error { return s.http.Close() }

// Stats are the figures of a [Server].
type Stats struct {
	Connections      int   // open connections, including those that faces have taken over
	MaxConnections   int   // the limit
	RefusedByTotal   int64 // since the start, like the next three
	RefusedByAddress int64
	Evicted          int64 // connections without a request that were closed to make room for others
	AcceptErrors     int64
}

// Stats returns the current figures.
func (s *Server) Stats() Stats {
	l := &s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{
		Connections: l.total, MaxConnections: l.maxTotal, Evicted: l.evicted.Load(), AcceptErrors: l.failures.Load(),
		RefusedByTotal: l.refused[byTotal].Load(), RefusedByAddress: l.refused[byAddress].Load(),
	}
}

// changed tracks the states of connections in net/http.
func (s *Server) changed(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateNew, http.StateIdle:
		s.limiter.wait(c, time.Now())
	case http.StateActive:
		s.limiter.work(c)
	case http.StateHijacked:
		c.hijacked.Store(true)
		s.limiter.work(c)
	}
}

// bounded wraps a handler. It resets the deadlines for each request, and replaces the remote
// address of requests that a trusted proxy forwards.
func (s *Server) bounded(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetWriteDeadline(time.Time{}) // the previous request's handler may have set one; fails only on a broken connection
		if r.ContentLength != 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			_ = control.SetReadDeadline(time.Now().Add(s.config.UnreadTimeout))
		}
		c, _ := r.Context().Value(connKey{}).(*conn)
		if c == nil || c.source != "" {
			handler.ServeHTTP(w, r)
			return
		}
		client, ok := s.config.behindProxy(r)
		if !ok {
			handler.ServeHTTP(w, r)
			return
		}
		r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
		name := sourceOf(client)
		if !s.limiter.enter(name) {
			s.note(byAddress, name)
			w.Header().Set("Retry-After", "5")
			http.Error(w, refusalText, http.StatusServiceUnavailable)
			return
		}
		defer s.limiter.done(name, c)
		handler.ServeHTTP(w, r)
	})
}

// listener applies the limits to the connections that it accepts.
type listener struct {
	net.Listener
	server *Server
}

// Accept implements [net.Listener]. It returns only connections within the limits. After an
// error, net/http waits and calls it again.
func (l *listener) Accept() (net.Conn, error) {
	s := l.server
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.limiter.failures.Add(1)
				if s.limiter.warn(int(refusals), time.Now()) {
					s.config.Logger.Warn("cannot accept connections", "error", err, "open", s.Stats().Connections)
				}
			}
			return nil, err
		}
		tcp, ok := accepted.(*net.TCPConn)
		if !ok {
			_ = accepted.Close()
			return nil, errors.New("edge: the listener is not a TCP listener")
		}
		c := &conn{TCPConn: tcp, limiter: &s.limiter, timeout: s.config.WriteTimeout}
		if at, ok := parseAddress(tcp.RemoteAddr().String()); ok && !s.config.trusts(at) {
			c.source = sourceOf(at)
		}
		refused, ok := s.limiter.open(c, time.Now())
		if ok {
			return c, nil
		}
		s.note(refused, c.source)
		s.refuse(tcp)
	}
}

// note counts a refusal, and logs one per warnEvery.
func (s *Server) note(by refusal, source string) {
	s.limiter.refused[by].Add(1)
	if !s.limiter.warn(int(by), time.Now()) {
		return
	}
	if by == byAddress {
		s.config.Logger.Warn("refused connections of an address that has reached its limit",
			"address", source, "limit", s.config.MaxPerAddress, "refusedSoFar", s.limiter.refused[by].Load(),
			"hint", "if it is a reverse proxy, name it in --trusted-proxies; else see --max-connections-per-address")
		return
	}
	s.config.Logger.Warn("refused connections because the server has reached its limit",
		"limit", s.config.MaxConnections, "refusedSoFar", s.limiter.refused[by].Load(),
		"hint", "see --max-connections; the default follows the limit on open files")
}

const (
	refusalsAtOnce = 64
	refusalTime    = time.Second
	refusalText    = "too many connections; try again in some seconds"
	refusalAnswer  = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 5\r\n" +
		"Connection: close\r\n\r\n" + refusalText + "\n"
)

// refuse sends a client the reason, and waits in the background until the client has read
// it, for a bounded number of clients at a time.
func (s *Server) refuse(tcp *net.TCPConn) {
	_ = tcp.SetDeadline(time.Now().Add(refusalTime))
	_, err := io.WriteString(tcp, refusalAnswer) // does not block: the kernel's buffer is empty
	select {
	case s.refusal <- struct{}{}:
	default:
		_ = tcp.Close()
		return
	}
	go func() {
		defer func() { <-s.refusal }()
		defer tcp.Close()
		if err != nil || tcp.CloseWrite() != nil {
			return
		}
		// Closing with unread input would make the kernel discard the response.
		const maxUnread = 64 << 10
		_, _ = io.CopyN(io.Discard, tcp, maxUnread)
	}()
}

// slogLogger adapts a logger for net/http.
func slogLogger(logger *slog.Logger) *log.Logger {
	return slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
}
