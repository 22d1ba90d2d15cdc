// Package forward passes the requests of a Socket.IO session on to the process that has
// it. A load balancer may send each request of a polling client to another process, so
// an id says whose the session is, and the registry of nodes says where that is.
package forward

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/limit"
)

// Nodes lists the processes of the deployment: by name what each says of itself, as JSON
// with the address that others reach it at.
type Nodes interface {
	Nodes(ctx context.Context) (map[string]json.RawMessage, error)
}

// Forwarder passes requests on. It is safe for concurrent use.
type Forwarder struct {
	registry Nodes
	own      string // the key of this process
	proxy    *httputil.ReverseProxy
	logger   *slog.Logger

	ctx    context.Context // ends when this process stops
	cancel context.CancelFunc
	open   handoff.Group // requests that are passed on

	asking singleflight.Group
	mu     sync.Mutex
	nodes  map[string]*url.URL // by key
	asked  time.Time
}

const (
	forwarded   = "X-Plugcast-Forwarded" // marks a request that was passed on: it is not again
	keyLength   = 11                     // characters, of 64 bits
	askAgain    = time.Second            // at most so often the registry is read for a key that is not known
	stale       = 10 * time.Second       // after so long it is read for one that is: the address may be another's by now
	peerTimeout = 2 * time.Second        // for reading the registry, and for a connection to a peer
)

// New makes the Forwarder of the process that has the name node.
func New(registry Nodes, node string, logger *slog.Logger) *Forwarder {
	f := &Forwarder{registry: registry, own: peerKey(node), logger: logger, nodes: map[string]*url.URL{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.DialContext = (&net.Dialer{Timeout: peerTimeout}).DialContext
	// A poll that is sent again on a fresh connection would take what comes after
	// what the first took and lost.
	transport.DisableKeepAlives = true
	f.proxy = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(peerOf(r.In.Context()))
			r.Out.URL.Path, r.Out.URL.RawPath = r.In.URL.Path, r.In.URL.RawPath
			r.Out.Host = r.In.Host // origins are compared with it
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
			r.Out.Header.Set(forwarded, f.own)
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode < http.StatusBadRequest {
				limit.Attributed(r.Request.Context()) // the peer knows the session
			}
			return nil
		},
		// A client that is told so begins a new session, and goes on where it was.
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if dial := new(net.OpError); errors.As(err, &dial) && dial.Op == "dial" && r.Context().Err() == nil { // else it is there
				f.forget(peerOf(r.Context()))
			}
			logger.Debug("a peer cannot be reached", "peer", peerOf(r.Context()).Host, "error", err)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"code":1,"message":"Session ID unknown"}`))
		},
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	return f
}

// peerKey stands for a process in the ids of its sessions.
func peerKey(node string) string {
	sum := sha256.Sum256([]byte(node))
	return base64.RawURLEncoding.EncodeToString(sum[:8])
}

// NewID makes the id of a session of this process.
func (f *Forwarder) NewID() string { return f.own + "." + rand.Text() }

// Elsewhere finds who serves a request for a session that this process does not
// know, or nil.
func (f *Forwarder) Elsewhere(r *http.Request, id string) http.Handler {
	key, _, ok := strings.Cut(id, ".")
	if !ok || len(key) != keyLength || key == f.own || r.Header.Get(forwarded) != "" {
		return nil
	}
	peer := f.find(key)
	if peer == nil {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.pass(w, r, peer) })
}

// pass lets a peer answer a request, or serve a WebSocket until it is closed.
func (f *Forwarder) pass(w http.ResponseWriter, r *http.Request, peer *url.URL) {
	if !f.open.Enter() {
		w.Header().Set("Connection", "close")
		http.Error(w, "this server is stopping", http.StatusServiceUnavailable)
		return
	}
	defer f.open.Leave()
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), peerInContext{}, peer))
	defer cancel()
	defer context.AfterFunc(f.ctx, cancel)()
	for name := range w.Header() { // the peer sets its own
		w.Header().Del(name)
	}
	answer := newResponse(ctx, w, r)
	defer answer.done()
	f.proxy.ServeHTTP(answer, r.WithContext(ctx))
}

// Shutdown ends what is passed on: its clients go on elsewhere, where they were. It
// waits until all is over, or ctx ends.
func (f *Forwarder) Shutdown(ctx context.Context) error {
	f.open.Close()
	f.cancel()
	return f.open.Drain(ctx, func() {}) // what is cancelled ends by itself
}

type peerInContext struct{}

func peerOf(ctx context.Context) *url.URL { return ctx.Value(peerInContext{}).(*url.URL) }

func (f *Forwarder) find(key string) *url.URL {
	f.mu.Lock()
	peer, age := f.nodes[key], time.Since(f.asked)
	f.mu.Unlock()
	if age < askAgain || peer != nil && age < stale {
		return peer
	}
	_, _, _ = f.asking.Do("", func() (any, error) {
		f.ask()
		return nil, nil
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes[key]
}

// forget lets the registry be read again for a peer that could not be reached: a
// process may come back under its name at another address.
func (f *Forwarder) forget(peer *url.URL) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.nodes, func(_ string, known *url.URL) bool { return known == peer })
}

// ask reads the registry.
func (f *Forwarder) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), peerTimeout)
	defer cancel()
	listed, err := f.registry.Nodes(ctx)
	if err != nil {
		f.mu.Lock()
		f.asked = time.Now() // what was known goes on being so
		f.mu.Unlock()
		f.logger.Warn("cannot look up the addresses of the other processes; their clients may have to start new sessions", "error", err)
		return
	}
	nodes := make(map[string]*url.URL, len(listed))
	for name, said := range listed {
		var n struct{ Address string }
		if err := json.Unmarshal(said, &n); err == nil && n.Address != "" {
			nodes[peerKey(name)] = &url.URL{Scheme: "http", Host: n.Address}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes, f.asked = nodes, time.Now()
}
