package handoff

import (
	"errors"
	"net"
	"testing"
	"time"
)

const patience = 20 * time.Second

// tcpPair returns the two ends of a connection over loopback.
func tcpPair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err = net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return server, client
}

// TestLingeringClose closes while input of the peer is unread: the peer must get the data
// that was written before, and no reset.
func TestLingeringClose(t *testing.T) {
	t.Parallel()
	server, peer := tcpPair(t)
	closed := make(chan struct{})
	c := &lingeringConn{TCPConn: server.(*net.TCPConn), outer: server, closed: func() { close(closed) }}
	if _, err := peer.Write(make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("goodbye")); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	_ = c.Close()
	var buf [64]byte
	n, err := peer.Read(buf[:])
	if string(buf[:n]) != "goodbye" || err != nil {
		t.Errorf("the peer got %q (%v)", buf[:n], err)
	}
	if _, err := c.Read(buf[:]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read from a closed connection: %v", err)
	}
	_ = peer.Close()
	<-closed
}

// TestDeadlineDuringClose extends the read deadline during a close, as a reader does after
// it got a frame.
func TestDeadlineDuringClose(t *testing.T) {
	t.Parallel()
	server, _ := tcpPair(t) // the peer neither sends nor closes
	closed := make(chan struct{})
	c := &lingeringConn{TCPConn: server.(*net.TCPConn), outer: server, closed: func() { close(closed) }}
	_ = c.Close()
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the deadline was put off: %v", err)
	}
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("the connection is not closed")
	}
}
