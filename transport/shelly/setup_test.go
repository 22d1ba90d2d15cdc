package shelly

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

const plug domain.DeviceID = "shellyplugsg3-8cbfea9a1b2c"

var (
	epoch = time.Date(2026, 8, 6, 16, 20, 30, 0, time.UTC)
	cred  = domain.ConnectionRef{System: "clinica-sol", ID: "outbound-1"}
)

// bundle is a device whose updates are folded as the platform folds them.
type bundle struct {
	*Device
	t     fataler
	state *domain.State
	now   time.Time

	unaware bool // of a correction: its Changed lacks the fields of the correction
}

type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func setup(t fataler) *bundle {
	b := &bundle{t: t, state: domain.NewState(cred.System), now: epoch}
	b.restart()
	return b
}

// restart gives the device to another holder, which begins with the state of the log.
func (b *bundle) restart() {
	var rows []*domain.Device
	for _, row := range b.state.Devices {
		rows = append(rows, row)
	}
	b.Device = NewDevice(cred, plug, rows, Policy{})
	b.SetOnline(true)
}

// take takes the updates that are due after some time, checks them, and folds them.
func (b *bundle) take(after time.Duration) []Update {
	b.t.Helper()
	b.now = b.now.Add(after)
	updates := b.Take(b.now)
	for _, u := range updates {
		b.fold(u)
	}
	if at, waits := b.Due(); waits && !at.After(b.now) {
		b.t.Fatalf("something is due at %v after all was taken at %v", at, b.now)
	}
	return updates
}

// takeUnchecked is take for a device without the latest correction.
func (b *bundle) takeUnchecked(after time.Duration) []Update {
	b.unaware = true
	defer func() { b.unaware = false }()
	return b.take(after)
}

func (b *bundle) fold(u Update) {
	b.t.Helper()
	checked := domain.SystemUpdate{SystemID: cred.System, DeviceUpdate: u.DeviceUpdate}
	if err := checked.Validate(); err != nil {
		b.t.Fatalf("the update is not valid: %v", err)
	}
	e, err := domain.NewEvent(cred.System, u.DeviceUpdate, domain.Cause{Actor: cred.Actor()})
	if err != nil {
		b.t.Fatal(err)
	}
	before := wire(b.t, b.state.Devices[u.DeviceID])
	e.Time, e.Position = b.now, domain.Position{Ms: b.state.Cursor.Position.Ms + 1}
	if _, err := b.state.Apply(&e); err != nil {
		b.t.Fatal(err)
	}
	row := b.state.Devices[u.DeviceID]
	if row == nil || row.Position != e.Position {
		b.t.Fatalf("the update was not folded: %s", e.Data)
	}
	var differ []string
	after := wire(b.t, row)
	for _, name := range wireNames {
		if before[name] != after[name] {
			differ = append(differ, name)
		}
	}
	slices.Sort(differ)
	if b.unaware {
		return
	}
	if changed := slices.Sorted(slices.Values(u.Changed)); !slices.Equal(changed, differ) {
		b.t.Fatalf("changed is %v, but these changed: %v", changed, differ)
	}
}

// wireNames are the fields that may be in Changed.
var wireNames = func() (names []string) {
	for _, f := range domain.DeviceFields {
		if f.Category != domain.FieldClock {
			names = append(names, f.Name)
		}
	}
	return names
}()

// wire returns a row's fields as JSON; unknown ones are "".
func wire(t fataler, row *domain.Device) map[string]string {
	raw, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, v := range fields {
		if string(v) != "null" {
			out[name] = string(v)
		}
	}
	return out
}

// row returns the row of a channel, as JSON by field.
func (b *bundle) row(id domain.DeviceID) map[string]string { return wire(b.t, b.state.Devices[id]) }

// want checks fields of a channel's row; "" means unknown.
func (b *bundle) want(id domain.DeviceID, fields map[string]string) {
	b.t.Helper()
	row := b.row(id)
	for name, v := range fields {
		if row[name] != v {
			b.t.Fatalf("%s of %s is %q, want %q", name, id, row[name], v)
		}
	}
}

func (b *bundle) full(raw string)  { b.t.Helper(); b.Full(parse(b.t, raw), b.now) }
func (b *bundle) delta(raw string) { b.t.Helper(); b.Delta(parse(b.t, raw), b.now) }

func parse(t fataler, raw string) status.Document {
	t.Helper()
	doc, err := status.Parse([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// sample returns the member of a recorded frame that has the status.
func sample(t fataler, name, member string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "samples", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var frame map[string]json.RawMessage
	if err := json.Unmarshal(raw, &frame); err != nil {
		t.Fatal(err)
	}
	if frame[member] == nil {
		t.Fatalf("%s has no %s", name, member)
	}
	return string(frame[member])
}

// connected returns a plug whose first full status is in the log.
func connected(t *testing.T) *bundle {
	t.Helper()
	b := setup(t)
	b.full(sample(t, "rpc-notifyfullstatus-outbound-connect", "params"))
	if n := len(b.take(0)); n != 1 {
		t.Fatalf("the first status makes %d updates", n)
	}
	b.want(plug, map[string]string{"relayOn": "true", "powerW": "399.2", "errors": "[]"})
	return b
}
