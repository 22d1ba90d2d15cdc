// Package status reads the status of Shelly devices of all generations: it merges full
// states and deltas into documents, and takes readings from them. It has no clock and
// does no I/O.
//
// A missing value is never read as off or as zero. A value of the wrong type (a text for
// a number, NaN, a list for an object) counts as missing.
package status

import (
	"math"
	"time"
)

// Document is a device's status: components by name, such as "switch:0" and "sys"
// (second generation) or "relays" and "meters" (first). Numbers are float64.
type Document map[string]any

// Merge merges a delta into the document: objects merge deeply, arrays and values
// replace, null removes, and an empty array for an object (as the cloud sends it) is an
// empty object. Afterwards the document shares nothing with the delta.
//
// A document is bounded, even if a device makes up names: when a merge leaves more than
// a few thousand members, or 64 KiB of text, Merge cuts the document to the parts that
// this package reads. If that is not enough, it removes the lists, and then the channels
// from the highest on.
func (d Document) Merge(delta Document) {
	if merge(d, delta) && d.oversized() {
		d.shrink()
	}
}

// merge merges delta into dst and reports whether dst may have grown.
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
				continue // [] for {}: an empty object (measured)
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

// Device clocks outside these bounds are not set: they count from 1970 or from 2000
// until they get the time (measured: until then ts is missing or small).
const (
	earliest = 978307200   // 2001
	latest   = 32503680000 // 3000
)

// Time returns the device's own clock at this document, to the microsecond in UTC, if
// the document has it: ts (RPC, Notifications), else the clock of sys, else that of the
// first generation. It ignores the timestamps of meters, which are local times.
func (d Document) Time() (at time.Time, ok bool) {
	for _, v := range [...]any{d["ts"], object(d["sys"])["unixtime"], d["unixtime"]} {
		s, ok := v.(float64)
		if ok && s >= earliest && s <= latest {
			return time.UnixMicro(int64(math.Round(s * 1e6))).UTC(), true
		}
	}
	return time.Time{}, false
}

// WakeupPeriod returns how often a sleeping device wakes, at most 30 days, or 0 for a
// device that never sleeps.
func (d Document) WakeupPeriod() time.Duration {
	const most = 30 * 24 * 60 * 60
	s, _ := object(d["sys"])["wakeup_period"].(float64)
	if !(s > 0) {
		return 0
	}
	return time.Duration(min(s, most) * float64(time.Second))
}

// object returns v as an object, or nil, which reads like an empty one.
func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
