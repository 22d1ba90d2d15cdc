// Package wsdial dials WebSockets for links, and ends a handshake as soon as its context ends.
package wsdial

import (
	"context"
	"net"
	"net/http"

	"github.com/gorilla/websocket"
)

// Dial calls the dialer's DialContext, and returns as soon as ctx ends. The library itself
// observes only the context's deadline during the handshake. Dial ignores the dialer's own
// NetDialContext.
func Dial(ctx context.Context, dialer websocket.Dialer, address string, header http.Header) (*websocket.Conn, *http.Response, error) {
	unwatch := func() bool { return true }
	dialer.NetDialContext = func(dialing context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(dialing, network, address)
		if err == nil {
			unwatch = context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	}
	ws, response, err := dialer.DialContext(ctx, address, header)
	unwatch()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return ws, response, err
}
