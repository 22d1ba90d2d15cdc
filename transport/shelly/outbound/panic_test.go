package outbound

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// A panic over one device's frame closes that device's socket, and no other.
func TestPanicClosesOneSocket(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	other := b.admitted()
	before := isolate.Panics()[where]
	var state *domain.State
	b.set(func() { state, b.state = b.state, nil })
	bad := b.device()
	bad.full("shellyplugsg3-000000000bad", true)
	b.eventually("the panic", func() bool { return isolate.Panics()[where] > before })
	b.set(func() { b.state = state })
	_ = bad.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		if _, _, err := bad.conn.ReadMessage(); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the socket is open")
		} else if err != nil {
			break
		}
	}
	other.full(plug, false)
	b.eventually("the other plug to be heard", func() bool { return b.relay(plug) == "off" })
}
