package shelly

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// Each case is a delta at a time after the first status, which the log has, and the time
// at which Take and Due make an update of it.
func TestThinning(t *testing.T) {
	t.Parallel()
	const first = `{"switch:0":{"output":true,"apower":100,"voltage":230,"source":"init"}}`
	const atOnce, never = time.Duration(0), time.Duration(-1)
	for name, c := range map[string]struct {
		delta string
		after time.Duration // of the delta
		due   time.Duration // after the first status; 0 is at once
	}{
		"relay":                       {`{"switch:0":{"output":false}}`, 0, atOnce},
		"relay with power":            {`{"switch:0":{"output":false,"apower":0}}`, 0, atOnce},
		"errors":                      {`{"switch:0":{"errors":["overtemp"]}}`, 0, atOnce},
		"a step of power":             {`{"switch:0":{"apower":105}}`, 300 * time.Millisecond, time.Second},
		"a step down":                 {`{"switch:0":{"apower":0}}`, 300 * time.Millisecond, time.Second},
		"power that is not known":     {`{"switch:0":{"apower":null}}`, 0, time.Second},
		"power of less than 5 %":      {`{"switch:0":{"apower":104.9}}`, 2 * time.Second, time.Minute},
		"voltage":                     {`{"switch:0":{"voltage":231}}`, 2 * time.Second, time.Minute},
		"a new field":                 {`{"switch:0":{"freq":50}}`, 0, time.Minute},
		"the source alone":            {`{"switch:0":{"source":"button"}}`, 0, time.Minute},
		"energy":                      {`{"switch:0":{"aenergy":{"total":1}}}`, 0, time.Minute},
		"the same again":              {first, 0, never},
		"errors that are still none":  {`{"switch:0":{"errors":[]}}`, 0, never},
		"a component of no interest":  {`{"wifi":{"rssi":-70},"switch:0":{"counts":{"on_time":5}}}`, 0, never},
		"a field that was never here": {`{"switch:0":{"temperature":{"tC":null}}}`, 0, never},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.full(first)
			b.take(0)
			b.delta(c.delta)
			at, waits := b.Due()
			switch {
			case c.due == never:
				if waits {
					t.Fatalf("due at %v", at)
				}
			case c.due == atOnce:
				if !waits || at.After(epoch) || len(b.take(c.after)) != 1 {
					t.Fatalf("due %v at %v", waits, at)
				}
			case !waits || !at.Equal(epoch.Add(c.due)):
				t.Fatalf("due %v at %v", waits, at)
			default:
				if u := b.take(c.due - time.Nanosecond); u != nil {
					t.Fatalf("taken too early: %+v", u)
				}
				if u := b.take(time.Nanosecond); len(u) != 1 {
					t.Fatalf("%+v", u)
				}
			}
		})
	}
}

func TestSmallPowerIsNoStepBelowOneWatt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.full(`{"switch:0":{"output":true,"apower":0.5}}`)
	b.take(0)
	b.delta(`{"switch:0":{"apower":1.4}}`)
	if at, _ := b.Due(); !at.Equal(epoch.Add(time.Minute)) {
		t.Fatal(at)
	}
	b.delta(`{"switch:0":{"apower":1.5}}`)
	if at, _ := b.Due(); !at.Equal(epoch.Add(time.Second)) {
		t.Fatal(at)
	}
}

func TestWhatComesBackInTimeIsNotTaken(t *testing.T) {
	t.Parallel()
	b := connected(t)
	b.delta(`{"switch:0":{"apower":12,"voltage":231}}`)
	if _, waits := b.Due(); !waits {
		t.Fatal("a step of power does not wait")
	}
	b.delta(`{"switch:0":{"apower":399.2,"voltage":240.8}}`)
	if at, waits := b.Due(); waits {
		t.Fatalf("due at %v", at)
	}
	if u := b.take(time.Hour); u != nil {
		t.Fatalf("%+v", u)
	}
}

// An update that is due at once includes the changes that waited.
func TestUpdateIsTheWholeState(t *testing.T) {
	t.Parallel()
	b := connected(t)
	b.SetName("laser 1")
	b.delta(`{"ts":1786033230,"switch:0":{"voltage":231,"current":null}}`)
	updates := b.take(0)
	want := []Update{{DeviceUpdate: domain.DeviceUpdate{
		DeviceID: plug, Online: domain.Some(true), RelayOn: domain.Some(true), Channel: domain.Some(0),
		PowerW: domain.Some(399.2), VoltageV: domain.Some(231.0), CurrentA: domain.Null[float64](),
		FrequencyHz: domain.Some(50.0), EnergyWh: domain.Some(2574466.629), CounterWh: domain.Some(2574466.629),
		TemperatureC: domain.Some(46.3), Source: domain.Some("init"), Errors: domain.Some([]string{}),
		Changed:      []string{"voltageV", "currentA", "name"},
		DeviceTime:   domain.Some(time.Date(2026, 8, 6, 16, 20, 30, 0, time.UTC)),
		ConnectionID: domain.Some(cred.ID), Name: domain.Some("laser 1"),
	}}}
	if diff := cmp.Diff(want, updates, cmp.Comparer(sameUpdate)); diff != "" {
		t.Fatal(diff)
	}
}

func sameUpdate(a, b domain.DeviceUpdate) bool {
	for _, f := range domain.DeviceFields {
		if f.IsPresent(&a) != f.IsPresent(&b) || !f.Equal(&a, &b) {
			return false
		}
	}
	return a.DeviceID == b.DeviceID && slices.Equal(a.Changed, b.Changed)
}

func TestSwitchThatDoesNotSayWhatItDoes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.full(`{"switch:0":{"apower":3},"pm1:1":{"apower":4}}`)
	u := b.take(0)
	if len(u) != 2 || u[0].RelayOn != domain.Null[bool]() || u[1].RelayOn != domain.Null[bool]() {
		t.Fatalf("%+v", u)
	}
	b.delta(`{"switch:0":{"apower":30}}`)
	if u := b.take(time.Second); len(u) != 1 || u[0].RelayOn != domain.Null[bool]() {
		t.Fatalf("a client that joins now must not take it for unchanged: %+v", u)
	}
}

func TestFullStatusForgetsWhatItLacks(t *testing.T) {
	t.Parallel()
	b := connected(t)
	b.full(`{"switch:1":{"output":true}}`)
	if u := b.take(0); len(u) != 2 || u[0].RelayOn != domain.Null[bool]() || u[0].PowerW != domain.Null[float64]() {
		t.Fatalf("%+v", u)
	}
	if _, known := b.relay(0); known {
		t.Fatal("the relay of a channel that is gone is known")
	}
	if on, known := b.relay(1); !on || !known {
		t.Fatal("the relay of the other channel is not known")
	}
	b.want(plug, map[string]string{"energyWh": "2574466.629", "relayOn": "", "errors": ""})
	if u := b.take(time.Hour); u != nil {
		t.Fatalf("%+v", u)
	}
}

// A new holder appends only differences from the log, and not at once.
func TestHolderGoesOnFromTheLog(t *testing.T) {
	t.Parallel()
	frame := sample(t, "rpc-notifyfullstatus-outbound-connect", "params")
	b := connected(t)
	b.restart()
	b.full(frame)
	if at, waits := b.Due(); waits {
		t.Fatalf("nothing changed, and yet due at %v", at)
	}
	b.restart()
	b.full(strings.Replace(frame, "240.8", "241.8", 1))
	if at, waits := b.Due(); !waits || !at.Equal(epoch.Add(time.Minute)) {
		t.Fatalf("due %v at %v", waits, at)
	}
	b.restart()
	b.full(strings.Replace(frame, `"output": true`, `"output": false`, 1))
	if u := b.take(time.Second); len(u) != 1 || !slices.Equal(u[0].Changed, []string{"relayOn"}) || !u[0].DeviceTime.IsZero() {
		t.Fatalf("%+v", u)
	}
}

// An event that another machine appended with a clock that is ahead delays no update here.
func TestLogThatIsAheadOfTheClock(t *testing.T) {
	t.Parallel()
	b := connected(t)
	b.state.Devices[plug].UpdatedAt = epoch.Add(time.Hour)
	b.restart()
	b.full(sample(t, "rpc-notifyfullstatus-outbound-connect", "params"))
	b.delta(`{"switch:0":{"voltage":231}}`)
	b.take(0)
	if at, waits := b.Due(); !waits || !at.Equal(epoch.Add(time.Minute)) {
		t.Fatalf("due %v at %v", waits, at)
	}
}

func TestAnotherConnectionTakesOver(t *testing.T) {
	t.Parallel()
	b := connected(t)
	other := NewDevice(domain.ConnectionRef{System: cred.System, ID: "cloud-1"}, plug, []*domain.Device{b.state.Devices[plug]}, Policy{})
	b.Device = other
	b.SetOnline(true)
	b.full(sample(t, "rpc-notifyfullstatus-outbound-connect", "params"))
	if u := b.take(0); len(u) != 1 || !slices.Equal(u[0].Changed, []string{"connectionId"}) {
		t.Fatalf("%+v", u)
	}
}

// Another publisher's row under an id of the device is not touched.
func TestForeignRowsAreLeftAlone(t *testing.T) {
	t.Parallel()
	on, offline := true, false
	d := NewDevice(cred, plug, []*domain.Device{
		{DeviceID: plug + ":7", RelayOn: &on},
		{DeviceID: plug, RelayOn: &on, Online: &offline},
		{DeviceID: "another", RelayOn: &on},
	}, Policy{})
	d.Full(parse(t, `{"sys":{"wakeup_period":7200},"temperature:0":{"tC":17.6}}`), epoch)
	if u := d.Take(epoch); u != nil {
		t.Fatalf("%+v", u)
	}
	if d.Channels() != nil || d.WakeupPeriod() != 2*time.Hour {
		t.Fatalf("%v %v", d.Channels(), d.WakeupPeriod())
	}
}

// A requested full status has no ts, and a clock in whole seconds. It includes a delta of
// the same second, which came before it on the same socket.
func TestWaitingDeltaOfTheSameSecond(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.delta(`{"ts":1786033227.9,"switch:0":{"output":false}}`)
	b.full(sample(t, "rpc-response-getstatus-plugsg3", "result"))
	b.take(0)
	b.want(plug, map[string]string{"relayOn": "true"})

	b = setup(t)
	b.delta(`{"ts":1786033228,"switch:0":{"output":false}}`)
	b.full(sample(t, "rpc-response-getstatus-plugsg3", "result"))
	b.take(0)
	b.want(plug, map[string]string{"relayOn": "false"})
}

// The time of a clock that is ahead is appended but orders nothing. When the clock is
// right again, its times count again.
func TestClockThatIsAhead(t *testing.T) {
	t.Parallel()
	at := func(ts float64) domain.Optional[time.Time] { return domain.Some(time.Unix(int64(ts), 0).UTC()) }
	for name, c := range map[string]struct {
		ts       float64
		row      domain.Optional[time.Time]
		restarts bool
	}{
		"decades":               {4102444800, domain.Optional[time.Time]{}, false},
		"decades, and restarts": {4102444800, domain.Optional[time.Time]{}, true},
		"two minutes":           {float64(epoch.Unix()) + 120, at(float64(epoch.Unix()) + 120), false},
		"half an hour":          {float64(epoch.Unix()) + 1800, domain.Optional[time.Time]{}, true},
	} {
		b := setup(t)
		b.full(fmt.Sprintf(`{"ts":%f,"switch:0":{"output":true}}`, c.ts))
		if u := b.take(0); len(u) != 1 || u[0].DeviceTime != at(c.ts) {
			t.Fatalf("%s: the event does not keep the time: %+v", name, u)
		}
		if got := domain.UpdateFromDevice(b.state.Devices[plug]).DeviceTime; got != c.row {
			t.Errorf("%s: the state has %v, want %v", name, got, c.row)
		}
		now := float64(epoch.Unix()) + 1
		if c.restarts {
			b.restart()
			b.full(fmt.Sprintf(`{"ts":%f,"switch:0":{"output":true}}`, now))
		}
		b.delta(fmt.Sprintf(`{"ts":%f,"switch:0":{"output":false}}`, now))
		b.take(time.Second) // which fails when it is not folded
		b.want(plug, map[string]string{"relayOn": "false"})
		if got := domain.UpdateFromDevice(b.state.Devices[plug]).DeviceTime; c.row.IsZero() && got != at(now) {
			t.Errorf("%s: after the clock was put right the state has %v", name, got)
		}
	}
}

func TestOnlineAloneIsNoUpdate(t *testing.T) {
	t.Parallel()
	b := connected(t)
	b.SetOnline(false)
	if at, waits := b.Due(); waits {
		t.Fatalf("due at %v", at)
	}
	b.delta(`{"switch:0":{"output":false}}`)
	if u := b.take(0); len(u) != 1 || u[0].Online != domain.Some(false) || !slices.Contains(u[0].Changed, "online") {
		t.Fatalf("%+v", u)
	}
}

func TestExpect(t *testing.T) {
	t.Parallel()
	on := SwitchCommand{CommandID: "on", CorrelationID: "request", On: true}
	off := SwitchCommand{CommandID: "off"}
	const turnsOff, turnsOn = `{"switch:0":{"output":false}}`, `{"switch:0":{"output":true}}`
	for name, c := range map[string]struct {
		expect []SwitchCommand
		deltas []string
		causes []string
	}{
		"done":                        {[]SwitchCommand{off}, []string{turnsOff}, []string{"off"}},
		"used once":                   {[]SwitchCommand{off}, []string{turnsOff, turnsOn, turnsOff}, []string{"off", "", ""}},
		"already so":                  {[]SwitchCommand{on}, []string{turnsOff, turnsOn}, []string{"", ""}},
		"the latest counts":           {[]SwitchCommand{on, off}, []string{turnsOff}, []string{"off"}},
		"two users at once":           {[]SwitchCommand{off, on}, []string{turnsOff, turnsOn, turnsOff}, []string{"off", "on", ""}},
		"overtaken":                   {[]SwitchCommand{off, on, off}, []string{turnsOff, turnsOn}, []string{"off", "on"}},
		"another change is not it":    {[]SwitchCommand{off}, []string{`{"switch:0":{"errors":["overtemp"]}}`, turnsOff}, []string{"", "off"}},
		"the reading is not the deed": {[]SwitchCommand{off}, []string{`{"switch:0":{"output":null}}`, turnsOff}, []string{"", "off"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := connected(t)
			for _, cmd := range c.expect {
				b.Expect(0, cmd, b.now.Add(time.Minute))
				b.Expect(9, cmd, b.now.Add(time.Minute)) // no such channel
			}
			for i, delta := range c.deltas {
				b.delta(delta)
				u := b.take(time.Second)
				if len(u) != 1 || u[0].CausationID != c.causes[i] {
					t.Fatalf("after %s: %+v, want caused by %q", delta, u, c.causes[i])
				}
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		for refused, cause := range map[string]string{"off": "", "on": "off"} {
			b := connected(t)
			b.Expect(0, off, b.now.Add(time.Minute))
			b.CancelExpect(0, refused)
			b.CancelExpect(9, refused) // no such channel
			b.delta(turnsOff)
			if u := b.take(time.Second); len(u) != 1 || u[0].CausationID != cause {
				t.Fatalf("%s was refused: %+v, want caused by %q", refused, u, cause)
			}
		}
	})
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		b := connected(t)
		b.Expect(0, off, b.now.Add(time.Minute))
		b.delta(turnsOff)
		if u := b.take(time.Minute); len(u) != 1 || u[0].CausationID != "" {
			t.Fatalf("%+v", u)
		}
	})
}

// The number of channels is bounded, for all statuses and over all connects, because each
// is a device of its own.
func TestMaxChannels(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for first := range 4 {
		doc := status.Document{}
		for n := range 2 * MaxChannels {
			doc[fmt.Sprint("switch:", (first*2*MaxChannels+n)%256)] = map[string]any{"output": true}
		}
		b.Full(doc, b.now)
		b.take(time.Minute)
		if n := len(b.state.Devices); n != MaxChannels {
			t.Fatalf("%d devices are known", n)
		}
		b.restart()
	}
}

func TestChannelOf(t *testing.T) {
	t.Parallel()
	d := NewDevice(cred, "strip", nil, Policy{})
	for id, want := range map[domain.DeviceID]int{
		"strip": 0, "strip:1": 1, "strip:255": 255,
		"strip:0": -1, "strip:01": -1, "strip:256": -1, "strip:-1": -1, "strip:+1": -1, "strip:": -1, "strip:1:1": -1,
		"strip2": -1, "stri": -1, "": -1,
	} {
		if n, ok := d.ChannelOf(id); ok != (want >= 0) || ok && n != want {
			t.Errorf("%q is channel %d, %v", id, n, ok)
		}
	}
}

// An id may leave no room for a channel number, and texts may be too long for an event:
// the other fields are still appended.
func TestWhatDoesNotFitIsLeftOut(t *testing.T) {
	t.Parallel()
	base := domain.DeviceID(strings.Repeat("d", 127))
	d := NewDevice(cred, base, nil, Policy{})
	d.SetName(strings.Repeat("é", 200) + "\xff")
	long := strings.Repeat("ü", 300)
	d.Full(status.Document{
		"switch:0": map[string]any{"output": true, "source": long, "errors": slices.Repeat([]any{long}, 50)},
		"switch:1": map[string]any{"output": true},
	}, epoch)
	u := d.Take(epoch)
	if len(u) != 1 || len(d.Channels()) != 1 {
		t.Fatalf("%+v", u)
	}
	checked := domain.SystemUpdate{SystemID: cred.System, DeviceUpdate: u[0].DeviceUpdate}
	if err := checked.Validate(); err != nil {
		t.Fatal(err)
	}
	if name, _ := u[0].Name.Get(); name != strings.Repeat("é", 126)+"…" { // of 256 bytes at most
		t.Fatalf("the name is %q", name)
	}
}

// The memory of a device is bounded, before and after its first full status.
func TestDeviceIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	junk := func(i int) status.Document {
		return status.Document{
			fmt.Sprint("junk:", i): map[string]any{"text": strings.Repeat("x", 1000)},
			"switch:0":             map[string]any{fmt.Sprint("junk", i): 1.0, "apower": float64(i)},
		}
	}
	for i := range 3 * maxWaiting {
		b.Delta(junk(i), b.now)
	}
	if len(b.waiting) > maxWaiting {
		t.Fatalf("%d deltas wait", len(b.waiting))
	}
	b.full(`{"switch:0":{"output":true}}`)
	for i := range 10_000 {
		b.Delta(junk(i), b.now)
	}
	if n := len(b.status); n > 100 {
		t.Fatalf("the status has %d components", n)
	}
	b.take(0)
	b.want(plug, map[string]string{"relayOn": "true", "powerW": "9999"})
}

// A typical NotifyStatus: read from the wire, merged, and taken a second later.
func BenchmarkDelta(b *testing.B) {
	frames := []string{
		`{"ts":1786033255.3,"switch:0":{"id":0,"apower":339.5}}`,
		`{"ts":1786033257.9,"switch:0":{"id":0,"apower":212.1,"current":1.495}}`,
	}
	docs := []status.Document{parse(b, frames[0]), parse(b, frames[1])}
	for _, c := range []struct {
		name string
		next func(i int) status.Document
	}{
		{"parsed", func(i int) status.Document { return docs[i%2] }},
		{"raw", func(i int) status.Document { return parse(b, frames[i%2]) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := NewDevice(cred, plug, nil, Policy{})
			d.Full(parse(b, sample(b, "rpc-notifyfullstatus-outbound-connect", "params")), epoch)
			now := epoch
			d.Take(now)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d.Delta(c.next(i), now)
				now = now.Add(time.Second)
				if len(d.Take(now)) != 1 {
					b.Fatal("a step of power was not taken")
				}
			}
		})
	}
}

// relay returns the state of a channel's relay, if it is known.
func (d *Device) relay(channel int) (on, known bool) {
	if i, ok := d.find(channel); ok && d.channels[i].shown {
		return d.channels[i].reading.RelayOn.Get()
	}
	return false, false
}
