package cloud

import (
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

func TestFaultCasesCommands(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, change ...func(*Config)) (*bench, *shellycloud.Account, *shellycloud.Device) {
		cfg := quick()
		for _, f := range change {
			f(&cfg)
		}
		b := newBench(t, cfg, shellycloud.Config{})
		a, d := b.account(sol, "acc1")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		return b, a, d
	}
	soon := func(c *Config) { c.CommandTimeout = 50 * time.Millisecond }
	expect := func(t *testing.T, got shelly.SwitchResult, outcome domain.Outcome, word string) {
		t.Helper()
		if got.Outcome != outcome || !strings.Contains(got.Error, word) {
			t.Errorf("the command ended as %+v, not %s with %q", got, outcome, word)
		}
	}

	t.Run("timeout (outcome unknown, no automatic retry of toggle)", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t, soon)
		a.SetFault(shellycloud.NoAnswer)
		expect(t, b.send(to(true, "cmd-1")), domain.OutcomeUnknown, "in time")
		b.relay(sol, plug, true) // it was done
		if n := a.Counts().Commands; n != 1 || !d.On(0) {
			t.Errorf("the command was sent %d times", n)
		}
	})
	t.Run("wrong/late/duplicate trid", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t, soon)
		a.SetFault(shellycloud.WrongTrid)
		expect(t, b.send(to(true, "cmd-1")), domain.OutcomeUnknown, "in time")
		a.SetFault(shellycloud.Late)
		expect(t, b.send(to(false, "cmd-2")), domain.OutcomeUnknown, "in time")
		a.SetFault(shellycloud.Twice)
		result := b.begin(to(true, "cmd-3"))
		a.SendLate()
		expect(t, b.await(result), domain.OutcomeCompleted, "")
		a.SetFault(shellycloud.Fine)
		expect(t, b.send(to(false, "cmd-4")), domain.OutcomeCompleted, "") // all that came before is read
		if len(result) > 0 {
			t.Error("a command ended twice")
		}
	})
	t.Run("response after reconnect", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t)
		a.SetFault(shellycloud.Late)
		result := b.begin(to(true, "cmd-1"))
		b.eventually("the command is there", func() bool { return a.Counts().Commands == 1 })
		a.BreakSockets()
		expect(t, b.await(result), domain.OutcomeUnknown, "dropped")
		b.eventually("there is another socket", func() bool { return a.Counts().Sockets == 1 && a.Counts().Dials == 2 })
		b.connected(sol, "acc1")
		a.SendLate()
		a.SetFault(shellycloud.Fine)
		expect(t, b.send(to(false, "cmd-2")), domain.OutcomeCompleted, "")
		if len(result) > 0 {
			t.Error("an answer of the time before was taken")
		}
	})
	for word, fault := range map[string]shellycloud.Fault{
		"WRONG_ID": shellycloud.WrongID, "UNAUTHORIZED (revoked share)": shellycloud.Unauthorized,
		"DEVICE_OFFLINE": shellycloud.Offline, "429": shellycloud.Limited,
	} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			b, a, d := begin(t)
			a.SetFault(fault)
			want, _, _ := strings.Cut(word, " ")
			if word == "429" {
				want = "max_req"
			}
			expect(t, b.send(to(true, "cmd-1")), domain.OutcomeFailed, want)
			d.Press(0, true) // by somebody else, and not by the command that failed
			b.relay(sol, plug, true)
			if cause := b.last(domain.TypeDeviceUpdate).CausationID; cause != "" {
				t.Errorf("a command that failed caused an update: %q", cause)
			}
		})
	}
	t.Run("200 empty body", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t)
		a.SetFault(shellycloud.Empty)
		expect(t, b.send(to(true, "cmd-1")), domain.OutcomeUnknown, "without saying")
		a.SetFault(shellycloud.Fine)
		// An all_status without a body does not mean an account without devices.
		fetched := a.Counts().AllStatus
		a.AnswerNext("")
		a.BreakSockets()
		b.eventually("the states were fetched twice", func() bool { return a.Counts().AllStatus >= fetched+2 })
		b.connected(sol, "acc1")
		b.eventually("the device is held again", func() bool { return b.send(to(true, "cmd-2")).Outcome == domain.OutcomeCompleted })
	})
	t.Run("200 isok:false", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t)
		fetched := a.Counts().AllStatus
		a.AnswerNext(`{"isok":false,"errors":["busy"]}`)
		a.BreakSockets()
		b.eventually("the states were fetched twice", func() bool { return a.Counts().AllStatus >= fetched+2 })
		b.eventually("the device is held again", func() bool { return b.send(to(true, "cmd-2")).Outcome == domain.OutcomeCompleted })
	})
	t.Run("two users at once", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t)
		first, second := b.begin(to(true, "cmd-1")), b.begin(to(false, "cmd-2"))
		expect(t, b.await(first), domain.OutcomeCompleted, "")
		expect(t, b.await(second), domain.OutcomeCompleted, "")
		b.relay(sol, plug, false)
		if n := a.Counts().Commands; n != 2 {
			t.Errorf("%d commands were sent", n)
		}
	})
	t.Run("drop in flight", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t)
		a.SetFault(shellycloud.Break)
		expect(t, b.send(to(true, "cmd-1")), domain.OutcomeUnknown, "dropped")
		b.relay(sol, plug, true) // the snapshot of the next socket tells
		b.connected(sol, "acc1")
		if n := a.Counts().Commands; n != 1 {
			t.Errorf("the command was sent %d times", n)
		}
	})
	t.Run("confirmation only by later status", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t)
		a.SetFault(shellycloud.NotDone)
		expect(t, b.send(to(true, "cmd-1")), domain.OutcomeCompleted, "")
		d.SendStatus()
		d.SetOnline(true)
		if got := b.log.device(sol, plug); *got.RelayOn {
			t.Error("an answer was taken for the relay's state")
		}
		d.Press(0, true)
		b.relay(sol, plug, true)
	})
}

// caused reports whether an update has the command as its cause.
func (b *bench) caused(command string) bool {
	for _, e := range b.log.all() {
		if e.Type == domain.TypeDeviceUpdate && e.CausationID == command {
			return true
		}
	}
	return false
}

func TestSwitch(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	a, d := b.account(sol, "acc1")
	gen1 := a.AddDevice(old, 1)
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	for name, test := range map[string]struct {
		change  func(*shelly.SwitchCommand)
		outcome domain.Outcome
		word    string
	}{
		"a channel that there is not": {func(c *shelly.SwitchCommand) { c.Device = plug + ":3" }, domain.OutcomeFailed, msgChannel},
		"expired":                     {func(c *shelly.SwitchCommand) { c.Expires = time.Now() }, domain.OutcomeFailed, msgExpired},
		"back after a time, gen1": {func(c *shelly.SwitchCommand) {
			c.Device, c.ToggleAfter = old, time.Second
		}, domain.OutcomeFailed, msgNoReturn},
		"gen1": {func(c *shelly.SwitchCommand) { c.Device = old }, domain.OutcomeCompleted, ""},
	} {
		c := to(true, name)
		test.change(&c)
		if r := b.send(c); r.Outcome != test.outcome || r.Error != test.word {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if d.On(0) || !gen1.On(0) {
		t.Error("the wrong plug was switched")
	}
	other := to(true, "cmd")
	other.System = luna
	if b.supervisor.Switch(other, func(shelly.SwitchResult) {}) {
		t.Error("another system's command was taken")
	}
	other = to(true, "cmd")
	other.Device = "b0b21c12dd94"
	if b.supervisor.Switch(other, func(shelly.SwitchResult) {}) {
		t.Error("a command for a device that nobody holds was taken")
	}
	d.SetOnline(false)
	b.eventually("the device is offline", func() bool { return strings.HasSuffix(b.beats.last(), plug+" false") })
	if r := b.send(to(true, "cmd-5")); r.Error != msgOffline {
		t.Errorf("an offline device: %+v", r)
	}
}

func TestSwitchBackAfterATime(t *testing.T) {
	t.Parallel()
	for name, jrpc := range map[string]bool{"documented": false, "jrpc": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := quick()
			cfg.Jrpc = jrpc
			b := newBench(t, cfg, shellycloud.Config{})
			_, d := b.account(sol, "acc1")
			b.run(b.supervisor)
			b.connected(sol, "acc1")
			c := to(true, "cmd-1")
			c.ToggleAfter = 30 * time.Millisecond
			if r := b.send(c); r.Outcome != domain.OutcomeCompleted {
				t.Fatal(r)
			}
			b.eventually("the command shows", func() bool { return b.caused("cmd-1") })
			b.relay(sol, plug, false)
			if r := b.send(to(true, "cmd-2")); r.Outcome != domain.OutcomeCompleted || !d.On(0) {
				t.Error(r)
			}
		})
	}
}
