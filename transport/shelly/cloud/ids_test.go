package cloud

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

func TestFaultCasesIds(t *testing.T) {
	t.Parallel()
	knows := func(ids ...domain.DeviceID) func(domain.DeviceID) bool {
		return func(id domain.DeviceID) bool {
			for _, known := range ids {
				if id == known {
					return true
				}
			}
			return false
		}
	}
	check := func(t *testing.T, read func(any) (wireID, error), v any, known func(domain.DeviceID) bool, want domain.DeviceID) {
		t.Helper()
		id, err := read(v)
		if got := id.resolve(known); err != nil || got != want {
			t.Errorf("%v is %q (%v), not %q", v, got, err, want)
		}
	}
	t.Run("decimal", func(t *testing.T) {
		t.Parallel()
		check(t, socketID, "12133370", nil, "b923fa")
		check(t, socketID, "194279021665684", nil, "b0b21c12dd94")
		check(t, socketID, "79530338915136", nil, "485519999340")
		check(t, httpID, "154755902610220", nil, plug) // too long for hex
		for _, bad := range []any{"", "-5", "+5", "1e3", "281474976710656", "99999999999999999999", "0x12", "abc", nil, true, []any{}} {
			if id, err := socketID(bad); err == nil {
				t.Errorf("%v is taken for %v", bad, id)
			}
		}
	})
	t.Run("hex", func(t *testing.T) {
		t.Parallel()
		check(t, httpID, "8CBFEA9A1B2C", nil, plug)
		check(t, httpID, "b923fa", nil, "b923fa")
		check(t, socketID, plug, nil, plug) // not as documented, but not to be mistaken
		for _, bad := range []any{"", "8cbfea9a1b2c:1", "g", "+b923f", "8cbfea9a1b2c8cbfea9a1b2c", nil} {
			if id, err := httpID(bad); err == nil {
				t.Errorf("%v is taken for %v", bad, id)
			}
		}
	})
	t.Run("padded", func(t *testing.T) {
		t.Parallel()
		check(t, socketID, "255", nil, "0000ff")
		check(t, socketID, "16777216", nil, "000001000000")
		check(t, httpID, "1000000", nil, "000001000000")
		if got := socketText("0000ff"); got != "255" {
			t.Errorf("0000ff is written %s", got)
		}
	})
	t.Run("ambiguous all-digit", func(t *testing.T) {
		t.Parallel()
		check(t, socketID, "123456", nil, "01e240")
		check(t, socketID, "123456", knows("123456"), "123456")
		check(t, socketID, "123456", knows("123456", "01e240"), "01e240")
		check(t, httpID, "123456", nil, "123456")
		check(t, httpID, "123456", knows("01e240"), "01e240")
		check(t, socketID, "485519999340", knows("485519999340"), "485519999340")

		// The same with a device of such an id, end to end.
		b := newBench(t, quick(), shellycloud.Config{})
		a, _ := b.account(sol, "acc1")
		d := a.AddDevice("123456", 1)
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		d.Press(0, true)
		b.relay(sol, "123456", true)
		c := to(false, "cmd-1")
		c.Device = "123456"
		if r := b.send(c); r.Outcome != domain.OutcomeCompleted || d.On(0) {
			t.Error(r)
		}
	})
	t.Run("X-prefixed", func(t *testing.T) {
		t.Parallel()
		check(t, socketID, "XB12ab", nil, "XB12ab")
		check(t, httpID, "XB12ab", nil, "XB12ab")
		if socketText("XB12ab") != "XB12ab" {
			t.Error("an X id was converted")
		}
		if _, err := socketID("X 1"); err == nil {
			t.Error("an id that we cannot have is taken")
		}
		if _, err := socketID("X1:2"); err == nil {
			t.Error("an id that looks like a channel's is taken")
		}
	})
	t.Run("number typed", func(t *testing.T) {
		t.Parallel()
		check(t, socketID, float64(154755902610220), nil, plug)
		check(t, httpID, float64(485519999340), nil, "485519999340") // digits that were hex
		check(t, httpID, float64(12345), nil, "012345")
		for _, bad := range []float64{-1, 1.5, 1 << 60} {
			if id, err := socketID(bad); err == nil {
				t.Errorf("%v is taken for %v", bad, id)
			}
		}
	})
	t.Run("unknown device", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, quick(), shellycloud.Config{})
		a, d := b.account(sol, "acc1")
		shared := a.AddDevice("b0b21c12dd94", 1)
		shared.SetUnlisted(true)
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		before := a.Counts().AllStatus
		for i := range 20 {
			shared.Press(0, i%2 == 0)
		}
		b.eventually("it is asked after", func() bool { return a.Counts().AllStatus > before })
		for i := range 20 {
			shared.Press(0, i%2 == 0)
		}
		d.Press(0, true)
		b.relay(sol, plug, true)
		if n := a.Counts().AllStatus; n != before+1 || b.log.device(sol, "b0b21c12dd94") != nil {
			t.Errorf("a device of somebody else's was asked after %d times", n-before)
		}
	})
	t.Run("device moved to another account", func(t *testing.T) {
		t.Parallel()
		cfg := quick()
		cfg.ResyncEvery = 20e6
		b := newBench(t, cfg, shellycloud.Config{})
		_, d := b.account(sol, "acc1")
		another := b.cloud.AddAccount("acc2", b.url)
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		d.Press(0, true)
		b.relay(sol, plug, true)
		d.MoveTo(another)
		b.eventually("it is not held any more", func() bool { return b.send(to(false, "cmd")).Error == msgGone })
		if got := b.log.device(sol, plug); !*got.RelayOn || !*got.Online {
			t.Errorf("a device that left was changed: %+v", got)
		}
		// The system connects the other account too, and the device is on that one now.
		b.connect(sol, "acc2", Secret{AuthCode: another.AuthCode()})
		b.supervisor.Changed(0, domain.ConnectionRef{System: sol, ID: "acc2"}, domain.TypeConnectionCreated)
		b.connected(sol, "acc2")
		if r := b.send(to(false, "cmd-2")); r.Outcome != domain.OutcomeCompleted {
			t.Error(r)
		}
		b.relay(sol, plug, false)
		if got := b.log.device(sol, plug); *got.ConnectionID != "acc2" {
			t.Errorf("it came through %s", *got.ConnectionID)
		}
	})
	t.Run("same device under two credentials/tenants (shared device)", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, quick(), shellycloud.Config{})
		one, d1 := b.account(sol, "acc1")
		two, d2 := b.account(luna, "acc2")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		b.connected(luna, "acc2")
		d1.Press(0, true)
		b.relay(sol, plug, true)
		d2.Press(0, true)
		b.relay(luna, plug, true)
		one.BreakSockets()
		if r := b.send(to(false, "cmd-1")); r.Outcome == domain.OutcomeCompleted {
			b.relay(sol, plug, false)
		}
		if !*b.log.device(luna, plug).RelayOn || two.Counts().Commands != 0 {
			t.Error("one system's command reached the other's account")
		}
		for _, e := range b.log.all() {
			if e.Type == domain.TypeDeviceUpdate && (e.SystemID == sol) != (e.Actor == "shelly:acc1") {
				t.Errorf("%s appended to %s", e.Actor, e.SystemID)
			}
		}
	})
}
