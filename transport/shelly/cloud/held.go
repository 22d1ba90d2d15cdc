package cloud

import (
	"reflect"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// held is a device of the account.
type held struct {
	id     domain.DeviceID
	gen    string
	device *shelly.Device
	online domain.Optional[bool]
	heard  time.Time // when something came of it
	stamp  stamp     // of the newest status
	serial float64   // of the last status that had one
	last   status.Document
	due    time.Time // when Take has something that waits; zero when nothing waits
	dirty  bool      // Take may have something now

}

// stamp is what a status says of its own time, for devices of the second generation
// and later. Their serial is the time in seconds; that of the first is a counter,
// and orders nothing (US). Nor does a clock that is wrong: see [domain.Orders].
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

// clock is a time in seconds that orders what a device says, or 0.
func clock(v any, now time.Time) float64 {
	const latest = 1 << 33 // seconds, in the year 2242: far more overflows a time
	s, _ := v.(float64)
	if !(s > 0 && s < latest) || !domain.Orders(time.UnixMicro(int64(s*1e6)), now) {
		return 0
	}
	return s
}

// before reports whether s is surely older than t.
func (s stamp) before(t stamp) bool {
	switch {
	case s.ts > 0 && t.ts > 0:
		return s.ts < t.ts
	case s.serial > 0 && t.serial > 0:
		return s.serial < t.serial
	}
	return false
}

// repeats reports whether a status is the one that was heard before: with the same
// serial, which the vendor's client takes for a mere sign of life (US). That alone
// is not enough: a serial has no finer grain than a second, and two parts of a
// status may carry the same.
func (h *held) repeats(doc status.Document) bool {
	serial, ok := doc["serial"].(float64)
	if !ok {
		return false
	}
	if h.last != nil && serial == h.serial && reflect.DeepEqual(h.last, doc) {
		return true
	}
	h.serial, h.last = serial, doc
	return false
}

// full takes a status from all_status.
func (h *held) full(doc status.Document, now time.Time) {
	h.device.Full(doc, now)
	h.stamp = stampOf(h.gen, doc, now)
	h.serial, _ = doc["serial"].(float64)
	h.last = nil
}

// delta takes a status from the socket.
func (h *held) delta(m StatusOnChange, now time.Time) {
	if m.Gen != "" {
		h.gen = m.Gen
	}
	if h.repeats(m.Status) {
		return
	}
	if s := stampOf(h.gen, m.Status, now); h.stamp.before(s) || h.stamp == (stamp{}) {
		h.stamp = s
	}
	h.device.Delta(m.Status, now)
	if m.Name != "" {
		h.device.SetName(m.Name)
	}
	h.dirty = true
}

// take returns what is to be appended now, and notes when there will be more.
func (h *held) take(now time.Time) []shelly.Update {
	updates := h.device.Take(now)
	h.dirty, h.due = false, time.Time{}
	if at, waits := h.device.Due(); waits {
		h.due = at
		if soonest := now.Add(minWake); h.due.Before(soonest) {
			h.due = soonest
		}
	}
	return updates
}
