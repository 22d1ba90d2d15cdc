package cloud

import (
	"reflect"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// device is a device on the account.
type device struct {
	id     domain.DeviceID
	gen    string // as the cloud says
	state  *shelly.Device
	online domain.Optional[bool] // as the cloud says
	heard  time.Time             // when the last notice came
	stamp  stamp                 // of the newest status
	serial float64               // of the last status that had one
	last   status.Document       // that status
	due    time.Time             // when an update that waits is due; zero when none waits
}

// stamp is the time that a status gives itself. The second generation and later have
// ts and a serial, both in seconds. The serial of the first generation is a counter
// and orders nothing (US); neither does a wrong clock: see [domain.PlausibleDeviceTime].
type stamp struct {
	ts, serial float64
}

func stampOf(gen string, doc status.Document, now time.Time) stamp {
	if gen == "G1" {
		return stamp{}
	}
	if _, first := doc["relays"]; first {
		return stamp{}
	}
	return stamp{ts: clock(doc["ts"], now), serial: clock(doc["serial"], now)}
}

// clock returns a time in seconds that can order statuses, or 0.
func clock(v any, now time.Time) float64 {
	const latest = 1 << 33 // seconds, in the year 2242: much larger values overflow a time
	s, _ := v.(float64)
	if !(s > 0 && s < latest) || !domain.PlausibleDeviceTime(time.UnixMicro(int64(s*1e6)), now) {
		return 0
	}
	return s
}

// before reports whether s is certainly older than t.
func (s stamp) before(t stamp) bool {
	switch {
	case s.ts > 0 && t.ts > 0:
		return s.ts < t.ts
	case s.serial > 0 && t.serial > 0:
		return s.serial < t.serial
	}
	return false
}

// repeats reports whether the status is the last one again. The vendor's client takes
// an equal serial for a mere sign of life (US). That alone is not enough: a serial is
// in whole seconds, and two parts of a status may carry the same.
func (d *device) repeats(doc status.Document) bool {
	serial, ok := doc["serial"].(float64)
	if !ok {
		return false
	}
	if d.last != nil && serial == d.serial && reflect.DeepEqual(d.last, doc) {
		return true
	}
	d.serial, d.last = serial, doc
	return false
}

// full applies a whole status from all_status.
func (d *device) full(doc status.Document, now time.Time) {
	d.state.Full(doc, now)
	d.stamp = stampOf(d.gen, doc, now)
	d.serial, _ = doc["serial"].(float64)
	d.last = nil
}

// delta applies a status from the socket.
func (d *device) delta(n notice, now time.Time) {
	if n.gen != "" {
		d.gen = n.gen
	}
	if d.repeats(n.status) {
		return
	}
	if s := stampOf(d.gen, n.status, now); d.stamp.before(s) || d.stamp == (stamp{}) {
		d.stamp = s
	}
	d.state.Delta(n.status, now)
	if n.name != "" {
		d.state.SetName(n.name)
	}
}

// take returns the updates to append now, and sets when the next one is due.
func (d *device) take(now time.Time) []shelly.Update {
	updates := d.state.Take(now)
	d.due = time.Time{}
	if at, waits := d.state.Due(); waits {
		d.due = at
		if soonest := now.Add(minWake); d.due.Before(soonest) {
			d.due = soonest
		}
	}
	return updates
}
