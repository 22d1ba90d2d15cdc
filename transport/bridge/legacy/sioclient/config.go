// Package sioclient is a client of Socket.IO servers (Socket.IO protocol 5 over
// Engine.IO protocol 4, by WebSocket): enough of one for a bridge. It opens one
// connection at a time and never dials again by itself: who holds it decides when,
// and with what to recover.
//
// The protocol's facts are from the specifications of the Socket.IO project
// (engine.io-protocol v4, socket.io-protocol v5) and from what its Node server does.
package sioclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/plugcast/plugcast/transport/socketio/packet"
)

// Defaults of [Config].
const (
	DefaultPath     = "/socket.io/"
	DefaultMaxFrame = 1 << 20
	DefaultTimeout  = 10 * time.Second
	DefaultQueue    = 256
)

// Config says where a server is and how it lets us in. URL is required.
type Config struct {
	// URL of the server, http or https. Its path is the namespace, as with
	// socket.io-client; its query goes along with the handshake.
	URL string
	// Path is where the server answers on its host; [DefaultPath] when empty.
	Path string
	// Auth returns what goes with the CONNECT packet, for each attempt anew. Nil is
	// nothing.
	Auth func(ctx context.Context) (map[string]json.RawMessage, error)
	// Header goes with the handshake.
	Header http.Header
	// TLS is for https; nil is Go's defaults.
	TLS *tls.Config
	// Timeout bounds the handshake, and each write; [DefaultTimeout] when 0.
	Timeout time.Duration
	// MaxFrame bounds a frame from the server, in bytes; [DefaultMaxFrame] when 0. A
	// longer one ends the connection.
	MaxFrame int64
	// Queue is how many events wait for whoever takes them, of up to 4 times MaxFrame
	// together; [DefaultQueue] when 0. When it is full nothing more is read, until the
	// server gives up.
	Queue int
}

// maxWaiting bounds what waits for whoever takes it, in bytes.
func (c Config) maxWaiting() int64 { return 4 * c.MaxFrame }

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	_, _, err := c.target()
	return err
}

// target is the address of the handshake, and the namespace.
func (c Config) target() (address, namespace string, err error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", "", errors.New("sioclient: the URL cannot be read") // url.Error repeats it, and it may have a secret in it
	}
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = "ws"
	case "https", "wss":
		u.Scheme = "wss"
	default:
		return "", "", errors.New("sioclient: the URL must begin with http:// or https://")
	}
	switch {
	case u.Host == "":
		return "", "", errors.New("sioclient: the URL has no host")
	case u.User != nil:
		return "", "", errors.New("sioclient: a user and a password in the URL are not supported: use auth")
	}
	if namespace = u.Path; namespace == "" {
		namespace = packet.Main
	}
	if strings.ContainsRune(namespace, ',') {
		return "", "", errors.New("sioclient: a namespace cannot have a comma in it")
	}
	if u.Path = c.Path; u.Path == "" {
		u.Path = DefaultPath
	}
	if !strings.HasPrefix(u.Path, "/") {
		return "", "", fmt.Errorf("sioclient: the path must begin with /, not %q", c.Path)
	}
	query := u.Query()
	query.Set("EIO", "4")
	query.Set("transport", "websocket")
	u.RawPath, u.RawQuery, u.Fragment = "", query.Encode(), ""
	return u.String(), namespace, nil
}

func (c Config) withDefaults() Config {
	c.Timeout = cmp.Or(max(c.Timeout, 0), DefaultTimeout)
	c.MaxFrame = cmp.Or(max(c.MaxFrame, 0), DefaultMaxFrame)
	c.Queue = cmp.Or(max(c.Queue, 0), DefaultQueue)
	return c
}

// Session is what a server that keeps connection state needs to know to send what
// was missed. The zero value asks for a new session.
type Session struct {
	PID    string // private id of the session, given by the server
	Offset string // of the last event that was taken; none can be recovered without
}

// RefusedError says that the server does not let us into the namespace, in its own
// words.
type RefusedError struct{ Message string }

// Error implements error.
func (e *RefusedError) Error() string { return "sioclient: refused by the server: " + e.Message }

var (
	// ErrClosed says that the connection was closed by us.
	ErrClosed = errors.New("sioclient: closed")
	// ErrDisconnected says that the server threw us out of the namespace.
	ErrDisconnected = errors.New("sioclient: disconnected by the server")
	// ErrTooLarge says that an event is over what the server takes; the connection
	// goes on.
	ErrTooLarge = errors.New("sioclient: the event is larger than the server takes")
)
