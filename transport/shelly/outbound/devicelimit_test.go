package outbound

import (
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// A connection and a system have a bounded number of devices. Operators see the refused
// ones. Devices that are stored already come and go.
func TestTooManyNames(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config   Config
		ofSystem int
		detail   string
	}{
		"of the connection": {Config{MaxDevices: 3}, 50_000, "the connection has 3 devices already, and may have 3"},
		"of the system":     {Config{}, 3, "the system has 3 devices already, and may have 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLimitedBundle(t, c.config, c.ofSystem)
			for _, id := range []string{"plug-1", "plug-2", "plug-3"} {
				w := b.device()
				w.full(domain.DeviceID(id), true)
				b.eventually(id, func() bool { return b.relay(domain.DeviceID(id)) == "on" })
				w.conn.Close()
				b.eventually("its socket to be gone", func() bool { return len(b.server.sessionsOf(ours)) == 0 })
			}
			for _, id := range []string{"plug-4", "plug-5"} {
				w := b.device()
				w.full(domain.DeviceID(id), true)
				w.mustClose(1013)
			}
			b.eventually("the refusals", func() bool { return len(b.refusals.LastRefusals(system, acc)) == 2 })
			last := b.refusals.LastRefusals(system, acc)[1]
			if last.Reason != "too-many-devices" || last.DeviceID != "plug-4" || last.Detail != c.detail {
				t.Errorf("refused is %+v", last)
			}
			b.eventually("the beats", func() bool { return len(b.beats) > 0 })
			b.set(func() {
				for _, beat := range b.beats {
					if strings.Contains(beat, "plug-4") || strings.Contains(beat, "plug-5") {
						t.Errorf("a device that was refused left %q", beat)
					}
				}
				if b.counts != 4 {
					t.Errorf("devices were counted %d times: once for each that is new, and not again at once", b.counts)
				}
			})
			w := b.device()
			w.full("plug-2", false)
			b.eventually("one that is known", func() bool { return b.relay("plug-2") == "off" })
		})
	}
}

// Devices that are being let in at the same time count, although nobody knows them yet.
func TestTooManyNamesAtOnce(t *testing.T) {
	t.Parallel()
	const most, tries = 5, 20
	b := newLimitedBundle(t, Config{MaxDevices: 2 * tries}, most)
	release := make(chan struct{})
	b.set(func() { b.holdUp = release })
	for i := range tries {
		w := b.device()
		w.full(domain.DeviceID("plug-"+string(rune('a'+i))), true)
	}
	b.eventually("most to be refused", func() bool {
		n := b.refusals.Counts()["too-many-devices"]
		return n >= tries-most
	})
	b.set(func() { b.holdUp = nil })
	close(release)
	b.eventually("the others to be gone", func() bool { return len(b.server.sessionsOf(ours)) <= most })
	b.eventually("those that were let in", func() bool { return len(b.state.Devices) == len(b.server.sessionsOf(ours)) })
	if n := len(b.server.sessionsOf(ours)); n == 0 || n > most {
		t.Errorf("%d devices were let in, want %d", n, most)
	}
}
