package socketio

import (
	"testing"

	"github.com/plugcast/plugcast/domain/isolate"
)

// badFeed is a feed of metrics that panics.
type badFeed struct{}

func (badFeed) Subscribe(func([]byte)) func() { panic("a bad feed") }

// A panic while a socket is served closes that socket, and no other one notices.
func TestPanicClosesOneSocket(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.metrics = badFeed{}
	b.start()
	other := b.client("eva:clinica-sol").connect()
	before := isolate.Panics()["engineio"]
	bad := b.client("staff:clinica-sol").connect()
	bad.send(`421["join-admin-dashboard"]`)
	for {
		if _, err := bad.ws.Next(bad.ctx); bad.ctx.Err() != nil {
			t.Fatal("the socket is open")
		} else if err != nil {
			break
		}
	}
	if answer := other.join("clinica-sol"); answer["ok"] != true {
		t.Errorf("the other socket was answered %v", answer)
	}
	if n := isolate.Panics()["engineio"] - before; n != 1 {
		t.Errorf("%d panics are counted", n)
	}
}
