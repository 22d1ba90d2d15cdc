package rooms

import (
	"encoding/json"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// subject is what an event is about and, for a device-update, which fields it
// speaks of.
type subject struct {
	device domain.DeviceID
	fields fieldSet
	time   time.Time // orders it among the updates of its device; zero when it has none, or none to be believed
}

// fieldSet is a set of names of fields of a device-update.
type fieldSet uint64

const (
	// foreignField stands for what is never covered by another update, such as names
	// that are not known here: nobody can tell whether two of them are the same.
	foreignField fieldSet = 1 << 63
	// seenField is spoken of by every update that does not say that the device is
	// offline: the fold notes when the device was last seen.
	seenField fieldSet = 1 << 62
)

// fieldBits lists the fields that an update may speak of. deviceId is the same
// in both of two that are compared, and changed is about the update itself.
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
	// A null makes the fold forget the clock, which changes what it ignores
	// afterwards; so such an update stays.
	var at time.Time
	switch {
	case string(raw) == "null" || json.Unmarshal(raw, &at) != nil:
		s.fields |= foreignField
	case domain.PlausibleDeviceTime(at, arrival):
		s.time = at
	default: // the fold does not take it
		s.fields &^= fieldBits["deviceTime"]
	}
	return s
}

// supersedes reports whether an older update of the same device is not needed
// by who gets this one, which is not stale: see [conflation.add]. An older one
// without a device time was folded whatever the clock said, and this one with a
// time may be ignored.
func (s *subject) supersedes(older *subject) bool {
	if older.fields&foreignField != 0 || older.fields&^s.fields != 0 {
		return false
	}
	return s.time.IsZero() || !older.time.IsZero()
}
