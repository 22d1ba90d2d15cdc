package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// EventQuery picks events of one system's history. Bounds that are nil, and other
// fields that are zero, do not narrow: the position 0-0 and the year 1 are bounds like
// any other.
type EventQuery struct {
	After, Before *Position  // both exclusive
	From, To      *time.Time // bounds of the event's time, from inclusive, to exclusive

	Filter        EventFilter
	Actor         string
	CorrelationID string

	Limit      int  // of a page; 0 is the largest that the store has
	Descending bool // the newest first
}

// EventFilter says which events a reader wants. The zero EventFilter lets all
// through. An event that is about no device passes no filter of devices.
type EventFilter struct {
	Types   []EventType
	Devices []DeviceID
}

// Bounds of a filter.
const (
	maxFilterTypes   = 64
	maxFilterDevices = 256
	maxTypeName      = 64 // bytes
)

// ParseEventFilter makes a filter of what a reader asks for, whichever face it asks:
// lists of names, each of which may be several with commas between. A type that
// nobody knows is fine: it may come to be. Names that are given twice count once in
// the filter. Errors are an [Error].
func ParseEventFilter(types, devices []string) (EventFilter, error) {
	var f EventFilter
	typeNames, deviceNames := splitNames(types), splitNames(devices)
	if len(typeNames) > maxFilterTypes || len(deviceNames) > maxFilterDevices {
		return f, Invalid(CodeInvalidFilter, fmt.Sprintf("a filter names at most %d types and %d devices", maxFilterTypes, maxFilterDevices))
	}
	for _, name := range typeNames {
		t, err := ParseEventType(name)
		if err != nil {
			return f, err
		}
		if !slices.Contains(f.Types, t) {
			f.Types = append(f.Types, t)
		}
	}
	for _, name := range deviceNames {
		device, err := ParseDeviceID(name)
		if err != nil {
			return f, err
		}
		if !slices.Contains(f.Devices, device) {
			f.Devices = append(f.Devices, device)
		}
	}
	return f, nil
}

// splitNames takes lists apart. Nothing between two commas is an empty name, which
// no parser takes: a list that somebody forgot to fill must not pass for no filter.
func splitNames(lists []string) (names []string) {
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// ParseEventType checks a name that somebody gives for a type of events, known or
// not. The error is an [Error] of [CodeInvalidFilter].
func ParseEventType(s string) (EventType, error) {
	strange := func(r rune) bool { return r == ',' || !unicode.IsGraphic(r) || unicode.IsSpace(r) }
	if s == "" || len(s) > maxTypeName || !utf8.ValidString(s) || strings.ContainsFunc(s, strange) {
		return "", Invalid(CodeInvalidFilter,
			fmt.Sprintf("the name of a type is 1 to %d printable characters without spaces and commas, not %s", maxTypeName, quote(s)))
	}
	return EventType(s), nil
}

// IsZero reports whether the filter lets everything through.
func (f *EventFilter) IsZero() bool { return len(f.Types) == 0 && len(f.Devices) == 0 }

// Match reports whether the filter lets an event through. device is called only when
// that depends on it: to find out what an event is about, its data has to be parsed.
func (f *EventFilter) Match(t EventType, device func() DeviceID) bool {
	if len(f.Types) > 0 && !slices.Contains(f.Types, t) {
		return false
	}
	if len(f.Devices) == 0 {
		return true
	}
	about := device()
	return about != "" && slices.Contains(f.Devices, about)
}
