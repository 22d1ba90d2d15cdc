package legacy

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/legacyserver"
)

// Events go both ways, each once, even if the server sends the events that it receives to the
// whole room, with or without our mark.
func TestNoLoop(t *testing.T) {
	t.Parallel()
	for _, echo := range []string{"", "room", "strip"} {
		t.Run("echo "+echo, func(t *testing.T) {
			t.Parallel()
			b := setup(t, legacyserver.Options{Echo: echo, Ack: true}, `,"delivery":"acknowledged"`, "")
			for n := range 20 {
				b.ours(n)
				b.server.Emit(theirs(n))
			}
			b.until("all came in", func() bool { return len(b.pulled()) >= 20 })
			b.until("all went out", func() bool { return len(b.received()) >= 20 })
			if echo != "" {
				b.until("all echoes were heard", func() bool { return b.store.counted("echoes") == 20 })
			}
			if got := b.pulled(); !slices.Equal(got, upTo(20)) {
				t.Errorf("came in: %v", got)
			}
			if got := b.received(); !slices.Equal(got, upTo(20)) {
				t.Errorf("went out: %v", got)
			}
			if n := len(b.log.all()); n != 40 {
				t.Errorf("our log has %d events, want 40", n)
			}
			if found := b.store.found(); len(found) != 0 {
				t.Errorf("reported: %+v", found)
			}
			var payload map[string]any
			if err := json.Unmarshal(b.server.Received()[0].Payload, &payload); err != nil {
				t.Fatal(err)
			}
			first := slices.IndexFunc(b.log.all(), func(e domain.Event) bool { return e.Origin == "" })
			want := map[string]any{"id": b.log.all()[first].ID, "origin": deployment, "via": deployment}
			if fmt.Sprint(payload["plugcast"]) != fmt.Sprint(want) || payload["deviceId"] != "ours" || payload["attributes"] != nil {
				t.Errorf("the payload is %v", payload)
			}
		})
	}
}

// A server with connection state recovery sends us every event despite cuts of the link and
// restarts of our process. With acknowledgements it also receives every event.
func TestRecovered(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{Recovery: true, Ack: true, Echo: "room"}, `,"delivery":"acknowledged"`, "")
	const rounds, each = 4, 5
	n := 0
	emit := func() {
		for range each {
			b.server.Emit(theirs(n))
			b.ours(n)
			n++
		}
	}
	for round := range rounds {
		emit()
		b.until("something came in", func() bool { return len(b.pulled()) > n-each }) // so that the link has an offset
		if round%2 == 0 {
			b.proxy.Cut()
			emit()
			b.proxy.Mend()
		} else {
			b.stop()
			emit()
			b.start()
		}
		b.joined()
	}
	b.until("all came in", func() bool { return len(b.pulled()) >= n })
	b.until("all went out", b.pushedAll)
	if got := b.pulled(); !slices.Equal(got, upTo(n)) {
		t.Errorf("came in: %v", got)
	}
	got := b.received()
	twice := len(got) - n
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, upTo(n)) {
		t.Errorf("went out: %v", got)
	}
	reported := uint64(0)
	for _, f := range b.store.found() {
		if f.Kind != domain.FindingMaybeTwice {
			t.Errorf("reported: %+v", f)
		}
		reported += f.Count
	}
	if reported < uint64(twice) {
		t.Errorf("%d came twice, and %d were reported", twice, reported)
	}
}

// pushedAll reports whether the link has saved that it emitted our whole log.
func (b *bundle) pushedAll() bool {
	newest, _ := b.log.End(b.t.Context(), clinic)
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	return b.store.saved.Pushed != nil && *b.store.saved.Pushed == newest
}

// With a server that keeps no connection state, the link reports a gap for the time in which it
// was down, or the server was. Our events go over all the same.
func TestForgetfulServer(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{Ack: true}, `,"delivery":"acknowledged"`, "")
	b.server.Emit(theirs(0))
	b.until("it came in", func() bool { return len(b.pulled()) == 1 })
	lost := time.Now()
	b.proxy.Cut()
	b.until("the server noticed", func() bool { return b.server.Members(string(clinic)) == 0 })
	b.server.Emit(theirs(1))
	b.ours(0)
	b.proxy.Mend()
	b.joined()
	b.until("the gap was reported", func() bool { return len(b.store.found(domain.FindingGap)) == 1 })
	gap := b.store.found(domain.FindingGap)[0]
	if gap.From.After(lost) || gap.To.Before(lost) {
		t.Errorf("lost at %s, and the gap is from %s to %s", lost, gap.From, gap.To)
	}
	b.server.Kill()
	b.ours(1)
	b.server.Restart()
	b.joined()
	b.until("the gap was reported", func() bool { return len(b.store.found(domain.FindingGap)) == 2 })
	b.server.Emit(theirs(2))
	b.until("it came in", func() bool { return len(b.pulled()) == 2 })
	if got := b.pulled(); !slices.Equal(got, []int{0, 2}) {
		t.Errorf("came in: %v", got)
	}
	b.until("all went out", func() bool { return len(b.received()) >= 2 })
	if got := b.received(); !slices.Equal(got, upTo(2)) {
		t.Errorf("went out: %v", got)
	}
}

// Without acknowledgements the server gets each event at most once, and the link reports those
// that the server may not have.
func TestNeverAcknowledges(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	const total = 300
	for n := range total {
		if n == 100 || n == 200 {
			b.proxy.Cut()
			b.until("the server noticed", func() bool { return b.server.Members(string(clinic)) == 0 })
			b.proxy.Mend()
		}
		b.ours(n)
	}
	b.until("all went out", b.pushedAll)
	b.stop() // ends the connection in order: the server handles everything that was written
	b.stop = func() {}
	maybe := map[int]bool{}
	for _, f := range b.store.found(domain.FindingMaybeLost) {
		for n, e := range b.log.all() {
			if e.Position.After(*f.After) && !e.Position.After(*f.Through) {
				maybe[n] = true
			}
		}
	}
	b.until("all is there, or was reported", func() bool {
		got := b.received()
		for n := range total {
			if !slices.Contains(got, n) && !maybe[n] {
				return false
			}
		}
		return true
	})
	got := b.received()
	sorted := slices.Sorted(slices.Values(got))
	if !slices.Equal(got, sorted) || len(slices.Compact(sorted)) != len(got) {
		t.Errorf("out of order, or twice: %v", got)
	}
	if maybe[total-1] {
		t.Error("events that were written before an orderly end are reported as lost")
	}
}

// While a link cannot save its state, it emits no more than a page: if it died, nobody could
// report which events it has emitted.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{Ack: true}, `,"delivery":"acknowledged"`, "")
	b.until("a start was saved", func() bool { saved, _ := b.store.LoadState(t.Context(), "", ""); return saved.Pushed != nil })
	b.store.fail(true)
	b.ours(0)
	b.until("it tries to load its state", func() bool { return b.store.asked() > 0 })
	b.ours(1)
	b.store.fail(false)
	b.until("all went out", b.pushedAll)
	if got := b.received(); !slices.Equal(got, upTo(2)) {
		t.Errorf("went out: %v", got)
	}
}

// The link reports what is not an event of plugcast, and goes on.
func TestBadPayloads(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	emit := func(event string, args ...any) {
		args = append([]any{}, args...)
		b.server.Emit(legacyserver.Emission{Room: string(clinic), Event: event, Args: args})
	}
	emit("device-update")
	emit("device-update", "d1")
	emit("device-update", map[string]any{"online": true})
	emit("device-update", map[string]any{"deviceId": "d1", "relayOn": "on"})
	emit("device-update", map[string]any{"deviceId": "d1", "systemId": "centro-luna"})
	emit("device-offline-status", map[string]any{"deviceId": "d1"})
	emit("smart-plug-assignment-updated", map[string]any{"deviceId": "d1"})
	b.server.EmitBinary(string(clinic))
	emit("metrics", map[string]any{"not": "for us"})
	b.server.Emit(theirs(7))
	b.until("the good one came in", func() bool { return len(b.pulled()) == 1 })
	b.until("the bad ones were reported", func() bool { return len(b.store.found()) == 8 })
	for _, f := range b.store.found() {
		if f.Kind != domain.FindingRejected || f.Detail == "" {
			t.Errorf("reported: %+v", f)
		}
	}
}

// Two processes that run the link at once, as after a takeover that one of them has not noticed,
// append each event of a server with offsets once.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{Recovery: true}, "", "")
	first := b.stop
	t.Cleanup(first)
	b.store = &memoryStore{counts: map[string]uint64{}} // so that neither process knows of the other
	b.run()
	b.until("both have joined", func() bool { return b.server.Members(string(clinic)) == 2 })
	for n := range 10 {
		b.server.Emit(theirs(n))
	}
	b.server.Emit(theirs(3), theirs(3)) // equal payloads are still two events
	b.until("both had all", func() bool { return b.log.asked() >= 24 })
	if got := b.pulled(); !slices.Equal(got, append(upTo(10), 3, 3)) {
		t.Errorf("came in: %v", got)
	}
}

// The link reports an event that our log refuses, and does not count it as pulled.
func TestLogRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.log.refuse("bad")
	bad := map[string]any{"deviceId": "bad", "online": true}
	b.server.Emit(legacyserver.Emission{Room: string(clinic), Event: "device-update", Args: []any{bad}}, theirs(0))
	b.until("the good one came in", func() bool { return len(b.pulled()) == 1 })
	b.until("both were noted", func() bool { return b.store.counted("pulled") > 0 && b.store.counted("rejected") == 1 })
	if n := b.store.counted("pulled"); n != 1 {
		t.Errorf("%d count as pulled", n)
	}
}

// refuser is a DeviceQuota that refuses one device.
type refuser domain.DeviceID

func (r refuser) Admit(_ context.Context, _ domain.SystemID, devices []domain.DeviceID) (domain.Admission, error) {
	a := domain.Admission{Most: 1}
	if slices.Contains(devices, domain.DeviceID(r)) {
		a.Refused = map[domain.DeviceID]bool{domain.DeviceID(r): true}
	}
	return a, nil
}

// The link reports an event of a device beyond the quota, and goes on.
func TestDeviceTooMany(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.stop()
	b.until("the link has left", func() bool { return b.server.Members(string(clinic)) == 0 })
	b.quota = refuser("many")
	b.start()
	tooMany := map[string]any{"deviceId": "many", "online": true}
	b.server.Emit(legacyserver.Emission{Room: string(clinic), Event: "device-update", Args: []any{tooMany}}, theirs(0))
	b.until("the good one came in", func() bool { return len(b.pulled()) == 1 })
	b.until("the other was noted", func() bool { return len(b.store.found(domain.FindingRejected)) == 1 })
	f := b.store.found(domain.FindingRejected)[0]
	if !strings.Contains(f.Detail, "too-many-devices") || !strings.Contains(string(f.There), "many") {
		t.Errorf("%+v", f)
	}
}

// While our log fails, no event is lost, and the link acknowledges an event only after the
// append.
func TestLogAway(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.log.fail(true)
	answered := make(chan int, 1)
	go func() { answered <- b.server.Ask(theirs(0)) }()
	b.server.Emit(theirs(1))
	select {
	case <-answered:
		t.Error("acknowledged an event that was not appended")
	case <-time.After(50 * time.Millisecond):
	}
	b.log.fail(false)
	if n := <-answered; n != 1 {
		t.Errorf("%d answers", n)
	}
	b.until("both came in", func() bool { return len(b.pulled()) == 2 })
}

// Events that came before the connection broke are appended once our log works again, however
// long that takes: a server without offsets does not send them again.
func TestLogAwayOverACut(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.log.fail(true)
	b.server.Emit(theirs(0), theirs(1), theirs(2))
	b.until("they came", func() bool { return b.log.tried() > 1 })
	b.proxy.Cut()
	b.until("the server noticed", func() bool { return b.server.Members(string(clinic)) == 0 })
	b.proxy.Mend()
	b.until("the log was away for long", func() bool { return b.log.tried() > 6 || b.server.Members(string(clinic)) == 1 })
	b.log.fail(false)
	b.until("all came in", func() bool { return len(b.pulled()) >= 3 })
	b.joined()
	b.server.Emit(theirs(3))
	b.until("the next came in", func() bool { return len(b.pulled()) == 4 })
	if got := b.pulled(); !slices.Equal(got, upTo(4)) {
		t.Errorf("came in: %v", got)
	}
}

// Events that could not be appended before our process ends are part of the gap.
func TestEndWhileTheLogIsAway(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	b.log.fail(true)
	before := time.Now()
	b.server.Emit(theirs(0))
	b.until("it came", func() bool { return b.log.tried() > 0 })
	after := time.Now()
	b.until("the server was heard after that", func() bool { return b.log.tried() > 4 })
	b.stop()
	b.log.fail(false)
	b.start()
	b.until("the gap was reported", func() bool { return len(b.store.found(domain.FindingGap)) == 1 })
	if gap := b.store.found(domain.FindingGap)[0]; gap.From.Before(before) || gap.From.After(after) {
		t.Errorf("events after %s are not in the gap from %s to %s", before, gap.From, gap.To)
	}
}

// The three events of such a server become events of plugcast, with the members that the domain
// does not know under attributes.
func TestTranslation(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", "")
	emit := func(event string, payload map[string]any) {
		b.server.Emit(legacyserver.Emission{Room: string(clinic), Event: event, Args: []any{payload}})
	}
	emit("device-update", map[string]any{"deviceId": "d1", "online": true, "relayOn": nil, "powerW": 12.5, "errors": "none", "room": "2"})
	emit("device-offline-status", map[string]any{
		"deviceId": "d1", "online": false, "relayOn": true, "lastSeenAt": 1795461046705, "by": "cron",
	})
	emit("smart-plug-assignment-updated", map[string]any{"deviceId": "d1", "equipmentId": 17, "systemId": string(clinic), "user": "ana"})
	emit("smart-plug-assignment-updated", map[string]any{"deviceId": "d1", "equipmentId": nil})
	b.until("all came in", func() bool { return len(b.log.all()) == 4 })
	want := []string{
		`{"deviceId":"d1","online":true,"relayOn":null,"powerW":12.5,"attributes":{"errors":"none","room":"2"}}`,
		`{"deviceId":"d1","online":false,"relayOn":true,"lastSeenAt":"2026-11-23T19:10:46.705Z","reason":"reported","attributes":{"by":"cron"}}`,
		`{"deviceId":"d1","equipmentId":"17","previousEquipmentId":null,"previousDeviceId":null,"attributes":{"user":"ana"}}`,
		`{"deviceId":"d1","equipmentId":null,"previousEquipmentId":null,"previousDeviceId":null}`,
	}
	state := domain.NewState(clinic)
	for i, e := range b.log.all() {
		if string(e.Data) != want[i] {
			t.Errorf("got  %s\nwant %s", e.Data, want[i])
		}
		if e.Origin != "socketio:old" || e.Actor != "socketio:old" {
			t.Errorf("it is from %q by %q", e.Origin, e.Actor)
		}
		if _, err := state.Apply(&e); err != nil {
			t.Errorf("the fold: %v", err)
		}
	}
}
