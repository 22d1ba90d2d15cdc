package status

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// Bounds of a document and its values.
const (
	maxText     = 64 << 10 // bytes of names and texts in a document
	maxString   = 256      // bytes of one text
	maxList     = 32       // errors of one channel
	maxChannels = 256
)

// shape is the part of an object that this package reads, by name. nil stands for a
// value: a number, a text, a boolean, or a list of those.
type shape map[string]shape

var (
	channelShape = shape{
		"output": nil, "source": nil, "errors": nil,
		"apower": nil, "voltage": nil, "current": nil, "freq": nil, "pf": nil,
		"aenergy":     {"total": nil},
		"temperature": {"tC": nil},
	}
	meterShape = shape{
		"power": nil, "voltage": nil, "current": nil, "pf": nil, "total": nil, "is_valid": nil,
	}
	documentShape = shape{
		"ts":       nil,
		"unixtime": nil,
		"sys":      {"unixtime": nil, "wakeup_period": nil},

		"relays":          {"ison": nil, "source": nil, "overpower": nil},
		"meters":          meterShape,
		"emeters":         meterShape,
		"temperature":     nil,
		"tmp":             {"tC": nil, "is_valid": nil},
		"overtemperature": nil,
		"overpower":       nil,
	}
)

// Trim returns a copy of the part of the document that this package reads. It gives the
// same readings, also after a merge.
func (d Document) Trim() Document {
	out := Document{}
	for name, value := range d {
		inner, read := documentShape[name]
		if _, _, ok := channelName(name); ok {
			inner, read = channelShape, true
		} else if isRelayless(name) {
			inner, read = relaylessShape, true
		}
		if !read {
			continue
		}
		if kept, ok := inner.keep(value); ok {
			out[name] = kept
		}
	}
	return out
}

// keep copies the part of a value that has the shape. It returns false for a value of the
// wrong type, which counts as missing.
func (s shape) keep(value any) (any, bool) {
	switch value := value.(type) {
	case map[string]any:
		if s == nil {
			return nil, false
		}
		out := make(map[string]any, min(len(value), len(s)))
		for name, inner := range s {
			if v, there := value[name]; there {
				if kept, ok := inner.keep(v); ok {
					out[name] = kept
				}
			}
		}
		return out, true
	case []any:
		most := maxList
		if s != nil {
			most = maxChannels
		}
		out := make([]any, min(len(value), most))
		for i := range out {
			out[i], _ = s.keep(value[i]) // null if false, so that the others keep their places
		}
		return out, true
	case string:
		return cut(value), true
	default:
		return value, true
	}
}

// oversized reports whether the document has more members or text than allowed.
func (d Document) oversized() bool {
	members, text := maxMembers, maxText
	return !within(map[string]any(d), &members, &text)
}

// within subtracts the value's members and text from the remaining allowances. It returns
// false when one is exceeded.
func within(value any, members, text *int) bool {
	switch value := value.(type) {
	case map[string]any:
		for name, v := range value {
			*members--
			*text -= len(name)
			if !within(v, members, text) {
				return false
			}
		}
	case []any:
		*members -= len(value)
		for _, v := range value {
			if !within(v, members, text) {
				return false
			}
		}
	case string:
		*text -= len(value)
	}
	return *members >= 0 && *text >= 0
}

// shrink brings an oversized document back within its bounds.
func (d Document) shrink() {
	trimmed := d.Trim()
	clear(d)
	maps.Copy(d, trimmed)
	if !d.oversized() {
		return
	}
	// The device has hundreds of channels, or is hostile. Lists go first, then channels
	// from the highest on, and the clock last.
	order := func(name string) int {
		switch _, channel, ok := channelName(name); {
		case ok:
			return channel
		case name == "sys" || name == "ts":
			return -1
		}
		return maxChannels
	}
	names := slices.SortedFunc(maps.Keys(d), func(a, b string) int {
		return cmp.Or(cmp.Compare(order(b), order(a)), strings.Compare(a, b))
	})
	for _, name := range names {
		if delete(d, name); !d.oversized() {
			return
		}
	}
}

// cut returns a text that an event may have: without characters that cannot be stored,
// and cut between two characters.
func cut(s string) string {
	if kept := domain.TruncateText(s, maxString); kept != s {
		return strings.Clone(kept)
	}
	return s
}
