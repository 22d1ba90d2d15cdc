package socketio

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/socketio/packet"
	"github.com/plugcast/plugcast/transport/socketio/sio"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

// brief is a connection that breaks before the server confirms it.
type brief struct {
	sio.Handler
	io   *sio.Socket
	told chan struct{}
}

func (b brief) Connected() {
	b.io.Session().Close("broke")
	b.Handler.Connected()
	close(b.told)
}

// The server does not keep a socket listed if its connection breaks during the connect.
func TestSocketThatBreaksWhileItConnects(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	told := make(chan struct{})
	server, err := sio.New(sio.Config{Namespaces: map[string]sio.Namespace{
		packet.Main: func(io *sio.Socket, sent json.RawMessage) (sio.Accepted, error) {
			accepted, err := b.server.connect(io, sent)
			accepted.Handler = brief{accepted.Handler, io, told}
			return accepted, err
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	testpeer.Run(t, server.Run)
	listening := httptest.NewServer(server)
	defer listening.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	defer func() { _ = server.Shutdown(ctx) }()
	ws, err := conformance.OpenWebSocket(ctx, listening.URL+"/socket.io/")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if err := ws.Send(`40{"token":"eva:clinica-sol"}`); err != nil {
		t.Fatal(err)
	}
	select {
	case <-told:
	case <-ctx.Done():
		t.Fatal("never connected")
	}
	if n := len(b.server.all()); n != 0 {
		t.Errorf("%d sockets are listed", n)
	}
}

// slow is a value that takes a while to encode.
type slow struct {
	socket *socket
	held   *bool
}

func (s slow) MarshalJSON() ([]byte, error) {
	free := s.socket.sending.TryLock()
	if free {
		s.socket.sending.Unlock()
	}
	*s.held = !free
	return []byte(`"<>"`), nil
}

// Encoding a snapshot does not hold up the events of other rooms: the goroutine that
// delivers an event to this socket delivers it to the whole room.
func TestEncodingDoesNotHoldDeliveriesUp(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	c := b.joined(sol)
	s := b.server.all()[0]
	held := true
	s.rooms[0].emitPlace("snapshot", slow{s, &held}, domain.Position{Ms: 7})
	if held {
		t.Error("deliveries wait")
	}
	if e := c.next(); e.name != "snapshot" || string(e.args[1]) != `"7-0"` {
		t.Errorf("got %s %s", e.name, e.args)
	}
}
