// Package sioclient is a client of Socket.IO servers (Socket.IO protocol 5 over
// Engine.IO protocol 4, by WebSocket), with what a bridge needs. It never reconnects by
// itself: the caller decides when to dial again, and which session to resume.
//
// It follows the specifications of the Socket.IO project (engine.io-protocol v4,
// socket.io-protocol v5) and the behaviour of its Node server.
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

// Config is the configuration of a connection. URL is required.
type Config struct {
	// URL of the server, http or https. Its path is the namespace, as with
	// socket.io-client; its query is sent with the handshake.
	URL string
	// Path is the path of the Engine.IO endpoint; [DefaultPath] when empty.
	Path string
	// Auth returns the payload of the CONNECT packet. Each Dial calls it; nil means no
	// payload.
	Auth func(ctx context.Context) (map[string]json.RawMessage, error)
	// Header is sent with the handshake.
	Header http.Header
	// TLS is the configuration for https; nil means Go's defaults.
	TLS *tls.Config
	// Timeout bounds the handshake, and each write; [DefaultTimeout] when 0.
	Timeout time.Duration
	// MaxFrame bounds a frame from the server, in bytes; [DefaultMaxFrame] when 0. A longer
	// frame ends the connection.
	MaxFrame int64
	// Queue is the number of events that can wait for [Conn.Events]; [DefaultQueue] when 0.
	// Together they can have 4 times MaxFrame bytes. While the queue is full, the client
	// reads nothing, until the server times out.
	Queue int
}

// maxWaiting bounds the waiting events, in bytes.
func (c Config) maxWaiting() int64 { return 4 * c.MaxFrame }

// Validate checks the configuration.
func (c Config) Validate() error {
	_, _, err := c.target()
	return err
}

// target returns the URL of the handshake, and the namespace.
func (c Config) target() (address, namespace string, err error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", "", errors.New("sioclient: the URL cannot be parsed") // without the url.Error, which repeats a URL that may contain a secret
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

// Session identifies a session to resume, on a server that keeps connection state: the server
// then sends the events that the client missed. The zero value asks for a new session.
type Session struct {
	PID    string // private id of the session, given by the server
	Offset string // offset of the last event that was handled; required to resume
}

// RefusedError reports that the server refused the namespace, with the server's own message.
type RefusedError struct{ Message string }

// Error implements error.
func (e *RefusedError) Error() string { return "sioclient: refused by the server: " + e.Message }

var (
	// ErrClosed reports that Close or Abort ended the connection.
	ErrClosed = errors.New("sioclient: closed")
	// ErrDisconnected reports that the server ended the connection to the namespace.
	ErrDisconnected = errors.New("sioclient: disconnected by the server")
	// ErrTooLarge reports that an event is larger than the server accepts. The connection
	// goes on.
	ErrTooLarge = errors.New("sioclient: the event is larger than the server accepts")
)
