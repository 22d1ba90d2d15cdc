// Package netcut is a network that can be cut, for tests of what goes on
// afterwards.
package netcut

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Network passes TCP connections on to an address, until it is cut. Its methods
// are safe for concurrent use.
type Network struct {
	target   string
	listener net.Listener
	working  sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

// New makes a network in front of an address, where nobody may listen yet. It ends
// with the test.
func New(t testing.TB, target string) *Network {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &Network{target: target, listener: listener, conns: map[net.Conn]struct{}{}}
	n.working.Go(n.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		n.Cut()
		n.working.Wait()
	})
	return n
}

// URL leads through the network.
func (n *Network) URL() string { return "http://" + n.listener.Addr().String() }

// Cut resets what is open, and lets nothing through until Mend.
func (n *Network) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
	for conn := range n.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// Mend lets connections through again.
func (n *Network) Mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = false
}

func (n *Network) accept() {
	for {
		near, err := n.listener.Accept()
		if err != nil {
			return
		}
		n.working.Go(func() { n.pass(near) })
	}
}

// pass copies both ways until either side ends.
func (n *Network) pass(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", n.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !n.admit(near, far) {
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	both.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, near)
	delete(n.conns, far)
}

func (n *Network) admit(conns ...net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		return false
	}
	for _, conn := range conns {
		n.conns[conn] = struct{}{}
	}
	return true
}
