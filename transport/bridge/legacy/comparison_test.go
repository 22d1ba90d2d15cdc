package legacy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/legacyserver"
)

// A link in shadow mode appends and emits nothing, and finds exactly the differences that exist.
func TestShadow(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{Recovery: true}, `,"compare":{"windowSeconds":3,"lateSeconds":1}`, `,"mode":"shadow"`)
	both := func(n int) {
		b.ours(n)
		b.their(n, map[string]any{})
	}
	// The first events may have no counterpart. After them, the link finds an event that only our side has.
	probe := 0
	b.until("the first moments are over", func() bool {
		probe++
		b.oursOf(domain.DeviceID(fmt.Sprint("probe-", probe)), probe)
		return len(b.store.found()) > 0
	})
	for n := 100; n < 120; n++ {
		switch n {
		case 105:
			b.ours(n)
		case 110:
			b.their(n, map[string]any{})
		case 115:
			b.ours(n)
			b.their(n, map[string]any{"online": false})
		default:
			both(n)
		}
	}
	b.until("all was found", func() bool { return len(b.differences()) >= 3 })
	var got []string
	for _, f := range b.differences() {
		got = append(got, fmt.Sprint(f.Kind, f.Members))
	}
	slices.Sort(got)
	if want := []string{"different[online]", "only-here[]", "only-there[]"}; !slices.Equal(got, want) {
		t.Errorf("found %v, want %v: %+v", got, want, b.differences())
	}
	if len(b.pulled()) != 0 || len(b.received()) != 0 {
		t.Errorf("it appended %d and emitted %d", len(b.pulled()), len(b.received()))
	}

	// A cut after which the server resumes the session makes no difference. After the
	// server's death the link reports a gap.
	b.proxy.Cut()
	both(200)
	b.proxy.Mend()
	b.joined()
	both(201)
	same := b.store.counted("same")
	b.until("the cut was made up for", func() bool { return b.store.counted("same") >= same+1 })
	b.server.Kill()
	b.ours(300)
	b.server.Restart()
	b.joined()
	b.until("the gap was found", func() bool { return len(b.store.found(domain.FindingGap)) == 1 })
	if found := b.differences(); len(found) != 3 {
		t.Errorf("found %+v", found)
	}
}

// A link in shadow mode acknowledges too: otherwise emissions of a server that asks its room for
// acknowledgements would fail because of it.
func TestShadowAcknowledges(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", `,"mode":"shadow"`)
	if n := b.server.Ask(theirs(0)); n != 1 {
		t.Errorf("%d answers", n)
	}
}

// Events from another deployment have the times of its clock, which may be far off. They do not
// disturb the comparison of other events.
func TestShadowBesideAnotherClock(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{}, "", `,"mode":"shadow"`)
	e, err := domain.NewEvent(clinic, domain.DeviceUpdate{DeviceID: "afar", Online: domain.Some(true)}, domain.Cause{Actor: "test"})
	e.Time, e.Origin = time.Now().Add(24*time.Hour), "afar"
	if err == nil {
		_, err = b.log.Append(t.Context(), []domain.Event{e}, domain.AppendOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	b.until("they are the same", func() bool {
		b.ours(0)
		b.their(0, map[string]any{})
		return b.store.counted("same") > 0
	})
}

// A process that takes the link back from another starts a new comparison, because it does not
// know what the other has compared.
func TestShadowAfterAnother(t *testing.T) {
	t.Parallel()
	b := setup(t, legacyserver.Options{Recovery: true}, `,"compare":{"windowSeconds":1,"lateSeconds":1}`, `,"mode":"shadow"`)
	b.until("they are the same", func() bool {
		b.ours(0)
		b.their(0, map[string]any{})
		return b.store.counted("same") > 0
	})
	b.proxy.Cut()
	b.until("the server noticed", func() bool { return b.server.Members(string(clinic)) == 0 })
	b.until("the other process saved its state", func() bool {
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		b.store.saved.Heard, b.store.saved.Revision = time.Now(), 7
		return !b.store.saved.Open
	})
	for n := range 5 {
		b.oursOf("elsewhere", n) // and the other process compared it
	}
	b.proxy.Mend()
	b.joined()
	b.until("the gap was found", func() bool { return len(b.store.found(domain.FindingGap)) == 1 })
	b.until("it compares again", func() bool {
		b.oursOf("probe", 0)
		return len(b.store.found(domain.FindingOnlyHere)) > 0
	})
	for _, f := range b.store.found(domain.FindingOnlyHere) {
		if f.Device != "probe" {
			t.Errorf("compared again: %+v", f)
		}
	}
}

// their makes the server emit the payload of an event of ours.
func (b *bundle) their(n int, but map[string]any) {
	b.t.Helper()
	payload := map[string]any{"deviceId": "ours", "online": true, "relayOn": n%2 == 0, "n": n, "timestamp": n}
	for name, value := range but {
		payload[name] = value
	}
	b.server.Emit(legacyserver.Emission{Room: string(clinic), Event: "device-update", Args: []any{payload}})
}

// differences lists the findings about the device under test.
func (b *bundle) differences() []domain.Finding {
	return slices.DeleteFunc(b.store.found(), func(f domain.Finding) bool { return f.Device != "ours" })
}
