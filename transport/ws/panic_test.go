package ws

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// explosive implements parts of the server that panic for some sockets.
type explosive struct {
	*clienttest.Authenticator
	*clienttest.Registry
}

func (e explosive) Verify(ctx context.Context, token string) (domain.Actor, error) {
	if token == "explode" {
		panic("a bad token")
	}
	return e.Authenticator.Verify(ctx, token)
}

func (e explosive) Put(s domain.Socket) {
	if s.Subject == "explode" {
		panic("a bad socket")
	}
	e.Registry.Put(s)
}

func (e explosive) Subscribe(func([]byte)) func() { panic("a bad feed") }

// A panic in any goroutine of a socket closes that socket. The other sockets notice
// nothing.
func TestPanicClosesOneSocket(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{}, func(p *client.Parts) {
		e := explosive{p.Authenticator.(*clienttest.Authenticator), p.Registry.(*clienttest.Registry)}
		p.Authenticator, p.Registry, p.Metrics = e, e, e
	})
	ts.auth.Name("bad", domain.Actor{Subject: "explode", Role: domain.RoleViewer, Systems: []domain.SystemID{sol}})
	other, _ := ts.join("viewer", sol)
	before := isolate.Panics()[where]
	for name, say := range map[string]func() *testClient{
		"a frame": func() *testClient {
			c := ts.connect("viewer")
			c.send(`{"event":"authenticate","data":{"token":"explode"}}`)
			return c
		},
		"a feed":    func() *testClient { c := ts.connect("staff"); c.send(`{"event":"join-admin-dashboard"}`); return c },
		"a connect": func() *testClient { return ts.dial("bad") },
	} {
		c := say()
		for {
			if _, err := c.read(); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("after %s its socket is open", name)
			} else if err != nil {
				break
			}
		}
		other.send(fmt.Sprintf(`{"event":"ping","id":%q}`, name))
		if f := other.next(); string(f.ID) != fmt.Sprintf("%q", name) {
			t.Errorf("after %s the other socket got %s", name, f.raw)
		}
	}
	if n := isolate.Panics()[where] - before; n != 3 {
		t.Errorf("%d panics are counted", n)
	}
}
