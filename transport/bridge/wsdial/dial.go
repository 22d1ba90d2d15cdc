// Package wsdial dials WebSockets for links, so that they end when they are told to.
package wsdial

import (
	"context"
	"net"
	"net/http"

	"github.com/gorilla/websocket"
)

// Dial is the dialer's DialContext, and gives up when ctx ends at any point. During
// the handshake the library looks at the context's deadline alone. The dialer's own
// NetDialContext is not used.
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
