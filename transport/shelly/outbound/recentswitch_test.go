package outbound

import (
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// Firmware 2.0.1-beta1 reports the old state once more after a command, and corrects that up
// to half a minute later (measured).
func TestFaultCasesOrder(t *testing.T) {
	t.Parallel()
	t.Run("OLD output up to 30 s after Set", oldOutputAfterSet)
}

func oldOutputAfterSet(t *testing.T) {
	t.Parallel()
	contradicted := func(t *testing.T) (*bundle, *wire, request) {
		b := newBundle(t, Config{})
		w := b.admitted()
		o := b.order(false)
		w.answer(plug, w.asked("Switch.Set").ID, `"result":{"was_on":true}`)
		o.ends(t, domain.OutcomeCompleted)
		w.delta(plug, `{"switch:0":{"output":false}}`)
		b.eventually("the new state", func() bool { return b.relay(plug) == "off" })
		w.delta(plug, `{"switch:0":{"output":true,"apower":90}}`) // old, or true?
		return b, w, w.asked("Switch.GetStatus")
	}
	flips := func(b *bundle) (n int) {
		for i := range b.events {
			if strings.Contains(string(b.events[i].Data), `"relayOn"`) && strings.Contains(string(b.events[i].Data), `"changed":["relayOn"`) {
				n++
			}
		}
		return n
	}
	t.Run("it was old", func(t *testing.T) {
		t.Parallel()
		b, w, r := contradicted(t)
		w.answer(plug, r.ID, `"result":{"id":0,"output":false,"apower":0.0}`)
		w.delta(plug, `{"switch:0":{"source":"end"},"sys":{"uptime":9}}`)
		w.delta(plug, `{"switch:0":{"output":false,"errors":["overtemp"]}}`)
		b.eventually("what came after", func() bool { return strings.Contains(b.texts(), "overtemp") })
		if b.relay(plug) != "off" || flips(b) > 1 {
			t.Errorf("the old state was believed: %s", b.texts())
		}
	})
	t.Run("somebody pressed the button", func(t *testing.T) {
		t.Parallel()
		b, w, r := contradicted(t)
		w.answer(plug, r.ID, `"result":{"id":0,"output":true,"apower":90.0}`)
		b.eventually("the button to count", func() bool { return b.relay(plug) == "on" })
		w.delta(plug, `{"switch:0":{"output":false}}`)
		b.eventually("the next press to count at once", func() bool { return b.relay(plug) == "off" })
		w.delta(plug, `{"switch:0":{"output":true}}`)
		b.eventually("and the next", func() bool { return b.relay(plug) == "on" })
	})
	t.Run("a whole status is as old", func(t *testing.T) {
		t.Parallel()
		b, w, r := contradicted(t)
		w.answer(plug, r.ID, `"result":{"id":0,"output":false,"apower":0.0}`)
		w.full(plug, true)
		r = w.asked("Switch.GetStatus")
		b.set(func() {
			if b.relay(plug) != "off" {
				t.Errorf("the old state was believed: %s", b.texts())
			}
		})
		w.answer(plug, r.ID, `"result":{"id":0,"output":true,"apower":90.0}`)
		b.eventually("the truth to count", func() bool { return b.relay(plug) == "on" })
	})
	t.Run("a whole status is true, and there is no answer", func(t *testing.T) {
		t.Parallel()
		b, w, r := contradicted(t)
		w.answer(plug, r.ID, `"result":{"id":0,"output":false,"apower":0.0}`)
		w.full(plug, true)
		w.answer(plug, w.asked("Switch.GetStatus").ID, `"error":{"code":404,"message":"No handler for Switch.GetStatus"}`)
		b.eventually("it to be believed", func() bool { return b.relay(plug) == "on" })
	})
	t.Run("the device says who it was", func(t *testing.T) {
		t.Parallel()
		b, w, _ := contradicted(t)
		w.delta(plug, `{"switch:0":{"output":true,"source":"button"}}`)
		b.eventually("the button to count at once", func() bool { return b.relay(plug) == "on" })
	})
	t.Run("it does not answer", func(t *testing.T) {
		t.Parallel()
		b, w, r := contradicted(t)
		w.answer(plug, r.ID, `"error":{"code":404,"message":"No handler for Switch.GetStatus"}`)
		b.eventually("it to be believed", func() bool { return b.relay(plug) == "on" })
	})
}

func TestWhatIsKeptWhileInDoubt(t *testing.T) {
	t.Parallel()
	doubted := func(t *testing.T, b *bundle) (*wire, request) {
		w := b.admitted()
		o := b.order(false)
		w.answer(plug, w.asked("Switch.Set").ID, `"result":{"was_on":true}`)
		o.ends(t, domain.OutcomeCompleted)
		w.delta(plug, `{"switch:0":{"output":true,"apower":90}}`)
		return w, w.asked("Switch.GetStatus")
	}
	t.Run("all of it", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w, r := doubted(t, b)
		w.delta(plug, `{"switch:0":{"output":true,"errors":["overtemp"]}}`)
		w.answer(plug, r.ID, `"error":{"code":404,"message":"No handler for Switch.GetStatus"}`)
		b.eventually("it to be believed", func() bool { return strings.Contains(b.texts(), "overtemp") })
		b.mu.Lock()
		defer b.mu.Unlock()
		if p := b.state.Devices[plug].PowerW; p == nil || *p != 90 {
			t.Errorf("the first contradiction is lost: %s", b.texts())
		}
	})
	t.Run("until a whole status", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w, r := doubted(t, b)
		w.full(plug, false)
		w.answer(plug, r.ID, `"error":{"code":404,"message":"No handler for Switch.GetStatus"}`)
		w.delta(plug, `{"switch:0":{"errors":["overtemp"]}}`)
		b.eventually("what came after", func() bool { return strings.Contains(b.texts(), "overtemp") })
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.relay(plug) != "off" {
			t.Errorf("an earlier report counted: %s", b.texts())
		}
	})
	t.Run("the answer counts after an agreement", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t, Config{})
		w, r := doubted(t, b)
		w.delta(plug, `{"switch:0":{"output":false}}`)
		w.answer(plug, r.ID, `"result":{"id":0,"output":true,"apower":90}`) // it is later than that
		w.delta(plug, `{"switch:0":{"errors":["overtemp"]}}`)
		b.eventually("what came after", func() bool { return strings.Contains(b.texts(), "overtemp") })
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.relay(plug) != "on" {
			t.Errorf("the device's answer did not count: %s", b.texts())
		}
	})
}
