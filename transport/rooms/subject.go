package rooms

import (
	"encoding/json"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// subject is the part of an event that filters and conflation need: its device and, for a
// device-update, its fields.
type subject struct {
	device domain.DeviceID
	fields fieldSet
	time   time.Time // the device time, which orders updates of one device; zero if missing or implausible
}

// fieldSet is a set of fields of a device-update.
type fieldSet uint64

const (
	// foreignField is a field that no other update can cover. Unknown names count as it,
	// because it is not known whether two of them mean the same.
	foreignField fieldSet = 1 << 63
	// seenField is in every update that does not say that the device is offline, because
	// the fold then notes when the device was last seen.
	seenField fieldSet = 1 << 62
)

// fieldBits maps the names of fields to bits. deviceId is equal in both updates of a
// comparison, and changed describes the update itself, so both have none.
var fieldBits = func() map[string]fieldSet {
	bits := map[string]fieldSet{"deviceId": 0, "changed": 0}
	for i, f := range domain.DeviceFields {
		bits[f.Name] = 1 << i
	}
	return bits
}()

func readSubject(t domain.EventType, data json.RawMessage, arrival time.Time) *subject {
	e := domain.Event{Type: t, Data: data}
	s := &subject{device: e.Device()}
	if t != domain.TypeDeviceUpdate {
		return s
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		s.fields = foreignField
		return s
	}
	for name := range fields {
		bit, known := fieldBits[name]
		if !known {
			bit = foreignField
		}
		s.fields |= bit
	}
	if string(fields["online"]) != "false" {
		s.fields |= seenField
	}
	raw, ok := fields["deviceTime"]
	if !ok {
		return s
	}
	// A null makes the fold forget the device's clock, which changes the updates that it
	// ignores later; so such an update stays.
	var at time.Time
	switch {
	case string(raw) == "null" || json.Unmarshal(raw, &at) != nil:
		s.fields |= foreignField
	case domain.PlausibleDeviceTime(at, arrival):
		s.time = at
	default: // the fold ignores it
		s.fields &^= fieldBits["deviceTime"]
	}
	return s
}

// supersedes reports whether a reader that gets s, which is not stale, can do without an
// older update of the same device: see [conflation.add]. An older update without a device
// time is always folded, but s with a device time may be ignored, so s does not supersede
// it.
func (s *subject) supersedes(older *subject) bool {
	if older.fields&foreignField != 0 || older.fields&^s.fields != 0 {
		return false
	}
	return s.time.IsZero() || !older.time.IsZero()
}
