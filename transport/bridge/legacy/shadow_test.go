package legacy

import (
	"fmt"
	"slices"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge/oldserver"
)

// The shadow appends and emits nothing, and finds exactly what was done to it.
func TestShadow(t *testing.T) {
	t.Parallel()
	b := setup(t, oldserver.Options{Recovery: true}, `,"compare":{"windowSeconds":3,"lateSeconds":1}`, `,"mode":"shadow"`)
	both := func(n int) {
		b.ours(n)
		b.their(n, map[string]any{})
	}
	// The first moments are excused: afterwards an event that only we have is found.
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

	// A cut that the server bridges by its memory makes no difference, and a death
	// that it cannot is a gap.
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

// their has the old system say what ours would.
func (b *bundle) their(n int, but map[string]any) {
	b.t.Helper()
	payload := map[string]any{"deviceId": "ours", "online": true, "relayOn": n%2 == 0, "n": n, "timestamp": n}
	for name, value := range but {
		payload[name] = value
	}
	b.server.Emit(oldserver.Emission{Room: string(clinic), Event: "device-update", Args: []any{payload}})
}

// differences lists what was found about the device that the test is about.
func (b *bundle) differences() []domain.Finding {
	return slices.DeleteFunc(b.store.found(), func(f domain.Finding) bool { return f.Device != "ours" })
}
