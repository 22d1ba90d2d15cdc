package main

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// cutter is a network between clients and a server that can be cut: what is
// connected loses its connections, and who comes later is let through.
type cutter struct {
	address  string
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu    sync.Mutex
	ended bool
	conns map[net.Conn]bool
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{address: listener.Addr().String(), listener: listener, target: target, conns: map[net.Conn]bool{}}
	c.running.Go(c.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		c.mu.Lock()
		c.ended = true
		c.mu.Unlock()
		c.cut()
		c.running.Wait()
	})
	return c
}

func (c *cutter) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.running.Go(func() { c.connect(conn) })
	}
}

func (c *cutter) connect(client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !c.add(client, server) {
		return
	}
	defer c.remove(client, server)
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_ = to.Close()
		_ = from.Close()
	}
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
}

func (c *cutter) add(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.conns[conn] = true
	}
	return !c.ended
}

func (c *cutter) remove(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		delete(c.conns, conn)
	}
}

// cut ends all connections, with a reset in both directions.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}
