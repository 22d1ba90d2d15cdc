package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Frame is one WebSocket message.
type Frame struct {
	Binary bool
	Data   string
}

// ErrClosed says that the server has closed the WebSocket, in whatever way.
var ErrClosed = errors.New("conformance: the WebSocket is closed")

// WebSocket is a session over WebSocket. One goroutine may read while others send.
type WebSocket struct {
	Open Open // empty when it joined a session that was open

	conn *websocket.Conn
	send sync.Mutex
}

// Dial connects to endpoint, like http://127.0.0.1:4000/engine.io/, with the query
// given, and reads nothing. A refusal is an error with the HTTP status. Close it.
func Dial(ctx context.Context, endpoint string, query url.Values) (*WebSocket, error) {
	dialer := websocket.Dialer{HandshakeTimeout: time.Minute}
	address := "ws" + strings.TrimPrefix(endpoint, "http") + "?" + query.Encode()
	conn, response, err := dialer.DialContext(ctx, address, nil)
	if response != nil {
		defer func() { _ = response.Body.Close() }()
	}
	if err != nil {
		if response != nil {
			return nil, fmt.Errorf("%w: %w", Refused(response.StatusCode), err)
		}
		return nil, fmt.Errorf("conformance: dial: %w", err)
	}
	return &WebSocket{conn: conn}, nil
}

// Refused is the HTTP status with which a server refused a WebSocket.
type Refused int

func (r Refused) Error() string {
	return fmt.Sprintf("conformance: refused: %s", http.StatusText(int(r)))
}

// OpenWebSocket opens a session at endpoint over WebSocket alone. Close it.
func OpenWebSocket(ctx context.Context, endpoint string) (*WebSocket, error) {
	w, err := Dial(ctx, endpoint, url.Values{"EIO": {"4"}, "transport": {"websocket"}})
	if err != nil {
		return nil, err
	}
	first, err := w.Next(ctx)
	if err == nil && (first.Binary || !strings.HasPrefix(first.Data, "0")) {
		err = fmt.Errorf("conformance: no open packet: %q", first.Data)
	}
	if err == nil {
		err = json.Unmarshal([]byte(first.Data[1:]), &w.Open)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// Probe connects a WebSocket to a polling session, to upgrade it. Nothing is sent.
func Probe(ctx context.Context, p *Polling) (*WebSocket, error) {
	return Dial(ctx, p.endpoint, url.Values{"EIO": {"4"}, "transport": {"websocket"}, "sid": {p.Open.SID}})
}

// Send sends packets as text, one message each.
func (w *WebSocket) Send(packets ...string) error {
	for _, packet := range packets {
		if err := w.write(websocket.TextMessage, []byte(packet)); err != nil {
			return err
		}
	}
	return nil
}

// SendBinary sends attachments, one message each.
func (w *WebSocket) SendBinary(attachments ...[]byte) error {
	for _, attachment := range attachments {
		if err := w.write(websocket.BinaryMessage, attachment); err != nil {
			return err
		}
	}
	return nil
}

func (w *WebSocket) write(kind int, data []byte) error {
	w.send.Lock()
	defer w.send.Unlock()
	if err := w.conn.WriteMessage(kind, data); err != nil {
		return fmt.Errorf("conformance: send: %w", err)
	}
	return nil
}

// Read is the next message, a ping too. Once it has failed, also because ctx was
// over, the WebSocket can no longer be read.
func (w *WebSocket) Read(ctx context.Context) (Frame, error) {
	deadline, _ := ctx.Deadline()
	if err := w.conn.SetReadDeadline(deadline); err != nil {
		return Frame{}, fmt.Errorf("conformance: read: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetReadDeadline(time.Now()) })
	defer stop()
	kind, data, err := w.conn.ReadMessage()
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return Frame{}, fmt.Errorf("conformance: read: %w", err)
	case err != nil:
		return Frame{}, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return Frame{kind == websocket.BinaryMessage, string(data)}, nil
}

// Next is the next message; a ping is answered, and only the message after it is
// returned.
func (w *WebSocket) Next(ctx context.Context) (Frame, error) {
	for {
		frame, err := w.Read(ctx)
		if err != nil || frame != (Frame{Data: "2"}) {
			return frame, err
		}
		if err := w.Send("3"); err != nil {
			return Frame{}, err
		}
	}
}

// Connect joins a namespace, with an empty auth for none, and returns the id which
// the server gave the socket in it. Anything that comes before the answer is lost.
func (w *WebSocket) Connect(ctx context.Context, namespace, auth string) (sid string, err error) {
	prefix := "0"
	if namespace != "/" {
		prefix += namespace + ","
	}
	if err := w.Send("4" + prefix + auth); err != nil {
		return "", err
	}
	for {
		frame, err := w.Next(ctx)
		if err != nil {
			return "", err
		}
		refusal := "44" + prefix[1:]
		if strings.HasPrefix(frame.Data, refusal) {
			return "", fmt.Errorf("conformance: connect to %s: %s", namespace, frame.Data[len(refusal):])
		}
		if payload, ok := strings.CutPrefix(frame.Data, "4"+prefix); ok && !frame.Binary {
			var reply struct {
				SID string `json:"sid"`
			}
			err := json.Unmarshal([]byte(payload), &reply)
			return reply.SID, err
		}
	}
}

// Close cuts the connection; the server is not told.
func (w *WebSocket) Close() { _ = w.conn.Close() }
