package cloud

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/status"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

func TestSnapshotThenLive(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	a, d := b.account(sol, "acc1")
	gen1 := a.AddDevice(old, 1)
	strip := a.AddDevice("485519999340", 4)
	gen1.Press(0, true)
	gen1.Draw(0, 43.5)
	gen1.Count(0, 44)
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	b.relay(sol, plug, false)
	b.relay(sol, old, true)
	b.relay(sol, "485519999340:3", false)
	if got := b.log.device(sol, old); got.CounterWh == nil || *got.CounterWh != 44 || *got.PowerW != 43.5 {
		t.Errorf("the first generation's meter is %+v", got)
	}
	d.SetPartial(true)
	d.Press(0, true)
	b.relay(sol, plug, true)
	strip.Press(2, true)
	b.relay(sol, "485519999340:2", true)
	if got := b.log.device(sol, plug); got.VoltageV == nil || *got.Source != "button" || *got.ConnectionID != "acc1" || !*got.Online {
		t.Errorf("a part of a status did away with the rest: %+v", got)
	}
	all := b.log.all()
	connected := slices.IndexFunc(all, func(e domain.Event) bool { return e.Type == domain.TypeConnectionStateChanged })
	first := slices.IndexFunc(all, func(e domain.Event) bool { return e.Type == domain.TypeDeviceUpdate })
	if connected < first || all[connected].Actor != "shelly:acc1" {
		t.Error("connected was reported before the snapshot was applied")
	}
	if got := b.supervisor.Stats(); got[domain.StateConnected] != 1 {
		t.Errorf("stats are %v", got)
	}
	if !slices.Contains(b.beats.all(), "clinica-sol/485519999340:1 true") {
		t.Errorf("reports are %v", b.beats.all())
	}
}

func TestFaultCasesOrder(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (*bench, *shellycloud.Account, *shellycloud.Device) {
		b := newBench(t, quick(), shellycloud.Config{})
		a, d := b.account(sol, "acc1")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		return b, a, d
	}
	on := func(on bool) map[string]any { return map[string]any{"id": 0, "output": on} }

	t.Run("equal serial", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t)
		later := time.Now().Unix() + 10
		a.Send(statusFrame(d.WireID(), map[string]any{"serial": later, "switch:0": on(true)}))
		a.Send(statusFrame(d.WireID(), map[string]any{"switch:0": on(false)}))
		a.Send(statusFrame(d.WireID(), map[string]any{"serial": later, "switch:0": on(true)})) // once more: a sign of life
		a.Send(statusFrame(d.WireID(), map[string]any{"serial": later, "switch:0": map[string]any{"apower": 12}}))
		b.eventually("the other part of that second is there", func() bool {
			d := b.log.device(sol, plug)
			return d.PowerW != nil && *d.PowerW == 12
		})
		b.relay(sol, plug, false)
	})
	t.Run("duplicate delivery", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t)
		frame := statusFrame(d.WireID(), map[string]any{"serial": 5, "switch:0": on(true)})
		for range 20 {
			a.Send(frame)
		}
		b.relay(sol, plug, true)
		d.Press(0, false)
		b.relay(sol, plug, false)
		if n := len(b.log.updates(sol, plug)); n != 3 {
			t.Errorf("there are %d updates, not one for each state", n)
		}
	})
	for name, ts := range map[string]any{
		"ts in the past": 1.5, "ts in the future (+1.7 s)": float64(time.Now().UnixMilli()+1700) / 1000, "ts missing": nil,
		"ts integer": time.Now().Unix(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, a, d := begin(t)
			status := map[string]any{"switch:0": on(true)}
			if ts != nil {
				status["ts"] = ts
			}
			a.Send(statusFrame(d.WireID(), status))
			b.relay(sol, plug, true)
			d.Press(0, false)
			b.relay(sol, plug, false)
		})
	}
	t.Run("snapshot older than buffered delta", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, quick(), shellycloud.Config{})
		a, d := b.account(sol, "acc1")
		release := a.HoldAllStatus()
		b.run(b.supervisor)
		b.eventually("the states are asked for", func() bool { return a.Counts().AllStatus > 0 })
		d.Press(0, true) // its event arrives before the answer, which lacks it
		ahead := float64(time.Now().UnixMilli())/1000 - 100
		a.Send(statusFrame(d.WireID(), map[string]any{"ts": ahead, "switch:0": on(false)})) // and this is older than the answer
		b.readUpTo(a, "Shelly:Here")
		release()
		b.connected(sol, "acc1")
		b.relay(sol, plug, true)
		for _, u := range b.log.updates(sol, plug) {
			if is, _ := u.RelayOn.Get(); !is {
				t.Error("the older state was appended")
			}
		}
	})
	for name, wrong := range map[string]float64{"unset": 30, "stuck in 2099": 4070908800} {
		t.Run("a clock that is "+name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, quick(), shellycloud.Config{})
			a, d := b.account(sol, "acc1")
			release := a.HoldAllStatus()
			b.run(b.supervisor)
			b.eventually("the states are asked for", func() bool { return a.Counts().AllStatus > 0 })
			a.Send(statusFrame(d.WireID(), map[string]any{"ts": wrong, "switch:0": on(false)}))
			a.Send(statusFrame(d.WireID(), map[string]any{"ts": wrong, "switch:0": on(true)}))
			b.readUpTo(a, "Shelly:Here")
			release()
			b.connected(sol, "acc1")
			b.relay(sol, plug, true)
			if s := stampOf("G2", status.Document{"ts": wrong, "serial": wrong}, time.Now()); s != (stamp{}) {
				t.Errorf("it orders by %+v", s)
			}
		})
	}
	t.Run("late StatusOnChange after Online:0", func(t *testing.T) {
		t.Parallel()
		b, _, d := begin(t)
		d.SetOnline(false)
		b.eventually("the device is reported", func() bool { return strings.HasSuffix(b.beats.last(), plug+" false") })
		d.Press(0, true) // it was on its way
		b.relay(sol, plug, true)
		if *b.log.device(sol, plug).Online || !strings.HasSuffix(b.beats.last(), "false") {
			t.Error("a late status brought the device back")
		}
		d.SetOnline(true)
		b.eventually("the device is back", func() bool { return strings.HasSuffix(b.beats.last(), plug+" true") })
	})
	t.Run("OLD output up to 30 s after Set", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t)
		a.SetFault(shellycloud.NoStatus)
		if r := b.send(to(true, "cmd-1")); r.Outcome != domain.OutcomeCompleted {
			t.Fatal(r)
		}
		a.Send(statusFrame(d.WireID(), map[string]any{"switch:0": on(false)})) // as firmware 2.0.1-beta1 does
		a.Send(statusFrame(d.WireID(), map[string]any{"switch:0": on(true)}))
		b.relay(sol, plug, true)
		if e := b.last(domain.TypeDeviceUpdate); e.CausationID != "cmd-1" {
			t.Errorf("the update is caused by %q", e.CausationID)
		}
	})
}

// readUpTo waits until the session has read all events that were sent so far.
func (b *bench) readUpTo(a *shellycloud.Account, mark string) {
	b.t.Helper()
	a.Send(`{"event":"` + mark + `"}`)
	b.eventually("everything is read", func() bool { return strings.Contains(b.output.String(), mark) })
}

// last returns the newest event of a type.
func (b *bench) last(kind domain.EventType) domain.Event {
	all := b.log.all()
	for _, e := range slices.Backward(all) {
		if e.Type == kind {
			return e
		}
	}
	b.t.Fatalf("there is no %s", kind)
	return domain.Event{}
}

func TestLostEventIsFoundByResync(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.ResyncEvery = 50 * time.Millisecond
	b := newBench(t, cfg, shellycloud.Config{})
	a, d := b.account(sol, "acc1")
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	a.Mute(true)
	d.Press(0, true)
	b.relay(sol, plug, true)
}

func TestQuietDeviceIsAskedAfter(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.SilentAfter = 50 * time.Millisecond
	b := newBench(t, cfg, shellycloud.Config{})
	a, d := b.account(sol, "acc1")
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	a.Mute(true)
	d.SetOnline(false)
	b.eventually("the device is reported", func() bool { return strings.HasSuffix(b.beats.last(), plug+" false") })
}

func TestBufferOverflowFetchesAgain(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Buffer = 8
	b := newBench(t, cfg, shellycloud.Config{})
	a, d := b.account(sol, "acc1")
	release := a.HoldAllStatus()
	b.run(b.supervisor)
	b.eventually("the states are asked for", func() bool { return a.Counts().AllStatus > 0 })
	d.SetPartial(true)
	for i := range 40 {
		d.Press(0, i%2 == 0)
	}
	d.Press(0, true)
	b.readUpTo(a, "Shelly:Here")
	release()
	b.connected(sol, "acc1")
	b.relay(sol, plug, true)
	if !strings.Contains(b.output.String(), "once more") {
		t.Error("the states were not fetched once more")
	}
}

// While the log is behind, a new socket takes the states and commands. The log has the
// states later.
func TestNewSocketWhileTheLogIsBehind(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	a, d := b.account(sol, "acc1")
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	b.supervisor.mu.Lock()
	s := b.supervisor.workers[sol]["acc1"].session
	b.supervisor.mu.Unlock()
	release := b.log.hold()
	defer release()
	other := domain.DeviceUpdate{DeviceID: "other", RelayOn: domain.Some(true), Changed: []string{"relayOn"}}
	many := slices.Repeat([]shelly.Update{{DeviceUpdate: other}}, maxWaiting)
	s.outbox.push(many, nil)
	b.eventually("these are being appended", func() bool { return !s.outbox.full() })
	s.outbox.push(many, nil)
	for dials := 2; dials <= 3; dials++ {
		asked := a.Counts().AllStatus
		a.BreakSockets()
		b.eventually("there is another socket", func() bool { return a.Counts().Dials == dials })
		b.eventually("it is live", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.live
		})
		if n := a.Counts().AllStatus - asked; n != 1 {
			t.Errorf("socket %d fetches the states %d times", dials, n)
		}
	}
	b.begin(to(true, "cmd-1"))
	b.eventually("the device is switched", func() bool { return d.On(0) })
	if !s.outbox.full() {
		t.Error("the log has caught up")
	}
	release()
	b.relay(sol, plug, true)
}

func TestNewDeviceIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t, quick(), shellycloud.Config{})
	a, _ := b.account(sol, "acc1")
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	d := a.AddDevice("b0b21c12dd94", 1)
	d.SetPartial(true)
	d.Press(0, true)
	b.relay(sol, "b0b21c12dd94", true)
}

// Devices of an account that are beyond the system's quota are dropped. Operators see
// them, once each, and the others go on.
func TestAccountWithDevicesTooMany(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.ResyncEvery = 20 * time.Millisecond
	b := newLimitedBench(t, cfg, shellycloud.Config{}, 2)
	a, d := b.account(sol, "acc1")
	many := map[domain.DeviceID]*shellycloud.Device{plug: d}
	for i := range 3 {
		id := fmt.Sprint("8cbfea9a1b2", i)
		many[domain.DeviceID(id)] = a.AddDevice(id, 1)
	}
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	known := map[domain.DeviceID]bool{}
	b.eventually("two of four are known", func() bool {
		for id := range many {
			known[id] = b.log.device(sol, id) != nil
		}
		n := 0
		for _, is := range known {
			if is {
				n++
			}
		}
		return n == 2
	})
	refused := func() []domain.DeviceRefusal { return b.refusals.LastRefusals(sol, "acc1") }
	b.eventually("the others are refused", func() bool { return len(refused()) == 2 })
	asked := a.Counts().AllStatus
	b.eventually("the states are fetched again", func() bool { return a.Counts().AllStatus >= asked+3 })
	for _, r := range refused() {
		if known[r.DeviceID] || r.Reason != "too-many-devices" || r.Detail != "the system has 2 devices already, and may have 2" {
			t.Errorf("refused is %+v", r)
		}
	}
	if n := b.refusals.Counts()["too-many-devices"]; n != 2 {
		t.Errorf("2 devices are refused, and %d are counted", n)
	}
	if n := strings.Count(b.output.String(), "devices of the account are refused"); n != 1 {
		t.Errorf("that is logged %d times", n)
	}
	for id, d := range many {
		d.Press(0, !d.On(0))
		if known[id] {
			b.relay(sol, id, d.On(0))
		} else if b.log.device(sol, id) != nil {
			t.Errorf("%s is refused, and in the log", id)
		}
	}
}

// Devices of an account that have no channel, such as gateways, hold no places.
func TestDevicesWithoutChannels(t *testing.T) {
	t.Parallel()
	b := newLimitedBench(t, quick(), shellycloud.Config{}, 5)
	a, _ := b.account(sol, "acc1")
	for i := range 3 {
		a.AddDevice(fmt.Sprint("8cbfea9a1b2", i), 0)
	}
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	admission, err := b.quota.Admit(t.Context(), sol, []domain.DeviceID{"a", "b", "c", "d"})
	if err != nil || admission.Refused != nil {
		t.Errorf("beside one plug and three gateways, of 4 devices are refused: %v, %v", admission.Refused, err)
	}
	if admission, err = b.quota.Admit(t.Context(), sol, []domain.DeviceID{"e"}); err != nil || admission.Refused == nil {
		t.Errorf("a device too many is admitted: %v", err)
	}
}

// Each channel of a device counts against the system's quota.
func TestChannelsOfAnAccountCount(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.ResyncEvery = 20 * time.Millisecond
	b := newLimitedBench(t, cfg, shellycloud.Config{}, 4)
	a := b.cloud.AddAccount("acc1", b.url)
	for i := range 3 {
		a.AddDevice(fmt.Sprint("8cbfea9a1b2", i), 3)
	}
	b.connect(sol, "acc1", Secret{AuthCode: a.AuthCode()})
	lookups := &countedKnown{Known: b.store}
	b.supervisor.parts.Known = lookups
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	b.eventually("one of three is refused", func() bool { return len(b.refusals.LastRefusals(sol, "acc1")) == 1 })
	b.eventually("the others are in the log", func() bool {
		b.log.mu.Lock()
		defer b.log.mu.Unlock()
		return len(b.log.state(sol).Devices) == 6 // the last one's channels come with it
	})
	asked := a.Counts().AllStatus
	b.eventually("the states are fetched again", func() bool { return a.Counts().AllStatus >= asked+3 })
	if n := lookups.count.Load(); n != 2 {
		t.Errorf("the rows of two devices are looked up %d times", n)
	}
}

// countedKnown counts the look-ups.
type countedKnown struct {
	shelly.Known
	count atomic.Int32
}

func (k *countedKnown) Channels(ctx context.Context, system domain.SystemID, base domain.DeviceID) ([]*domain.Device, error) {
	k.count.Add(1)
	return k.Known.Channels(ctx, system, base)
}

func TestUnreadableEntryTakesNothingAway(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.ResyncEvery = 30 * time.Millisecond
	b := newBench(t, cfg, shellycloud.Config{})
	a, d := b.account(sol, "acc1")
	b.run(b.supervisor)
	b.connected(sol, "acc1")
	before := a.Counts().AllStatus
	a.AnswerNext(`{"isok":true,"data":{"devices_status":{"` + plug + `":7}}}`)
	b.eventually("the states were fetched again", func() bool { return a.Counts().AllStatus > before+2 })
	d.Press(0, true)
	b.relay(sol, plug, true)
	if r := b.send(to(false, "cmd-1")); r.Outcome != domain.OutcomeCompleted {
		t.Error(r)
	}
}
