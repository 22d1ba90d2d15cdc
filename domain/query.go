package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// EventQuery selects events of one system's history. A nil bound and any other zero field do not narrow the result.
// Bounds are pointers because the position 0-0 and the year 1 are valid bounds.
type EventQuery struct {
	After, Before *Position  // both exclusive
	From, To      *time.Time // bounds of the event's time; From is inclusive, To exclusive

	Filter        EventFilter
	Actor         string
	CorrelationID string

	Limit      int  // of events in a page; 0 is the store's maximum
	Descending bool // newest first
}

// EventFilter selects events by type and device. An empty list does not narrow. A filter by device excludes events that
// are not about a device.
type EventFilter struct {
	Types   []EventType
	Devices []DeviceID
}

// Bounds of a filter.
const (
	maxFilterTypes   = 64
	maxFilterDevices = 256
)

// ParseEventFilter returns the filter that a reader asks for, on any face, with lists of names. Each element may hold
// several names, separated by commas. An unknown type is allowed, because a later build may append it. A repeated name
// counts once. ParseEventFilter returns an [Error] with [CodeInvalidFilter] or [CodeInvalidDeviceID].
func ParseEventFilter(types, devices []string) (EventFilter, error) {
	var f EventFilter
	typeNames, deviceNames := splitNames(types), splitNames(devices)
	if len(typeNames) > maxFilterTypes || len(deviceNames) > maxFilterDevices {
		return f, Invalid(CodeInvalidFilter, fmt.Sprintf("a filter may name at most %d types and %d devices", maxFilterTypes, maxFilterDevices))
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

// splitNames splits the lists at commas. It keeps empty names, which the parsers reject, so that a list that somebody
// forgot to fill is an error and not the absence of a filter.
func splitNames(lists []string) (names []string) {
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// IsZero reports whether the filter selects every event.
func (f *EventFilter) IsZero() bool { return len(f.Types) == 0 && len(f.Devices) == 0 }

// Match reports whether the filter selects an event of type t. It calls device only if the answer depends on it, because
// the caller has to parse the event's data to find the device.
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
