// Package status reads what Shelly devices say about themselves, of any
// generation: documents that are merged from full states and deltas, and the
// readings that are in them. It is pure: no clock, no I/O.
//
// Nothing that is missing is ever read as off or as zero. What cannot be what it
// should be (a text for a number, NaN, a list for an object) counts as missing.
package status

import (
	"math"
	"time"
)

// Document is a device's status: components by name, such as "switch:0" or
// "sys" (second generation), "relays" and "meters" (first). Numbers are float64.
type Document map[string]any

// Merge overlays a delta: objects merge deep, arrays and values replace, null
// removes, and an empty array for an object (as the cloud sends it) is an empty
// object. It shares nothing with the delta afterwards.
//
// A document does not grow without bound, whatever names a device makes up: one
// that has more than a few thousand members, or 64 KiB of text, after a merge is
// cut to what this package reads of it, and, should that not do, loses its lists
// and then its channels from the highest on.
func (d Document) Merge(delta Document) {
	if merge(d, delta) && d.oversized() {
		d.shrink()
	}
}

// merge reports whether dst may have grown.
func merge(dst, delta map[string]any) (grown bool) {
	for name, value := range delta {
		old, there := dst[name]
		switch value := value.(type) {
		case nil:
			delete(dst, name)
			continue
		case map[string]any:
			known, ok := old.(map[string]any)
			if !ok {
				known = make(map[string]any, len(value))
				dst[name] = known
				grown = true
			}
			grown = merge(known, value) || grown
			continue
		case []any:
			if _, ok := old.(map[string]any); ok && len(value) == 0 {
				continue // [] for {}: an object that says nothing (measured)
			}
			dst[name] = copyOf(value)
			grown = true
		case string:
			was, _ := old.(string)
			dst[name] = value
			grown = grown || len(value) > len(was)
		default:
			dst[name] = value
		}
		grown = grown || !there
	}
	return grown
}

func copyOf(value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(value))
		for name, v := range value {
			out[name] = copyOf(v)
		}
		return out
	case []any:
		out := make([]any, len(value))
		for i, v := range value {
			out[i] = copyOf(v)
		}
		return out
	default:
		return value
	}
}

// Device clocks that say another time are not set: they count from 1970 or from
// 2000 until they have heard of the time (measured: ts is missing then, or small).
const (
	earliest = 978307200   // 2001
	latest   = 32503680000 // 3000
)

// Time is the device's own clock at this document, to the microsecond in UTC,
// when it says so: ts (RPC, Notifications), else the clock of sys, else that of
// the first generation. The timestamps of meters are local times, and are not
// looked at.
func (d Document) Time() (at time.Time, ok bool) {
	for _, v := range [...]any{d["ts"], object(d["sys"])["unixtime"], d["unixtime"]} {
		s, ok := v.(float64)
		if ok && s >= earliest && s <= latest {
			return time.UnixMicro(int64(math.Round(s * 1e6))).UTC(), true
		}
	}
	return time.Time{}, false
}

// WakeupPeriod is how often a sleeping device wakes, or 0 for one that is awake
// all the time. It is at most 30 days.
func (d Document) WakeupPeriod() time.Duration {
	const most = 30 * 24 * 60 * 60
	s, _ := object(d["sys"])["wakeup_period"].(float64)
	if !(s > 0) {
		return 0
	}
	return time.Duration(min(s, most) * float64(time.Second))
}

// object is v as an object, or nil, which can be read like an empty one.
func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
