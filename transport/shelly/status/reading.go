package status

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// Reading has the state of one channel in a document: those fields of an update that
// come from a device. A field that the document lacks is absent, and a null one is null.
// CounterWh is the device's energy counter, converted to Wh. Errors is always present,
// and empty when there are none.
type Reading struct {
	Channel int
	Switch  bool // it has a relay, even if the relay's state is not known
	// Mode is for a device without a relay: while it stays the same, only measurements
	// change in Attributes.
	Mode string
	domain.DeviceUpdate
}

// maxReading is more than any plug can measure: a larger number is a fault and counts
// as missing. As a counter it would spoil the lifetime energy for ever.
const maxReading = 1e12

// Readings returns the readings of the document's channels, in order: the switches and
// meters (pm1) of the second generation, or else the relays of the first. A switch and a
// meter with the same number are one channel, with the switch's reading. A device of
// another kind, such as a dimmer, a cover or a three-phase meter, is channel 0, without a
// relay.
func (d Document) Readings() []Reading {
	var out []Reading
	for name, value := range d {
		kind, channel, ok := channelName(name)
		component, isObject := componentOf(value)
		if !ok || !isObject {
			continue
		}
		if kind == meterKind {
			if _, taken := componentOf(d[switchKind+strconv.Itoa(channel)]); taken {
				continue
			}
		}
		out = append(out, readChannel(kind, channel, component))
	}
	if out == nil {
		out = d.firstGeneration()
	}
	if extra, ok := d.relaylessReading(); ok && !slices.ContainsFunc(out, func(r Reading) bool { return r.Channel == 0 }) {
		out = append(out, extra)
	}
	slices.SortFunc(out, func(a, b Reading) int { return cmp.Compare(a.Channel, b.Channel) })
	return out
}

// The prefixes of components that are channels.
const (
	switchKind = "switch:" // Switch
	meterKind  = "pm1:"    // PM1: a meter without a relay
)

// channelName splits the name of a channel's component.
func channelName(name string) (kind string, channel int, ok bool) {
	switch {
	case strings.HasPrefix(name, switchKind):
		kind = switchKind
	case strings.HasPrefix(name, meterKind):
		kind = meterKind
	default:
		return "", 0, false
	}
	channel, ok = Channel(name[len(kind):])
	return kind, channel, ok
}

// Channel parses a channel's number, 0 to 255, as names have it: without a sign or
// leading zeros, so that each channel has one name.
func Channel(s string) (channel int, ok bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	return int(n), true
}

// componentOf returns v as a component. The cloud writes an empty one as [].
func componentOf(v any) (map[string]any, bool) {
	switch v := v.(type) {
	case map[string]any:
		return v, true
	case []any:
		return nil, len(v) == 0
	}
	return nil, false
}

func readChannel(kind string, channel int, c map[string]any) Reading {
	r := Reading{Channel: channel, Switch: kind == switchKind, DeviceUpdate: domain.DeviceUpdate{
		PowerW:       number(c, "apower"),
		VoltageV:     number(c, "voltage"),
		CurrentA:     number(c, "current"),
		FrequencyHz:  number(c, "freq"),
		PowerFactor:  number(c, "pf"),
		CounterWh:    number(object(c["aenergy"]), "total"), // Wh (Switch)
		TemperatureC: number(object(c["temperature"]), "tC"),
		Errors:       domain.Some(texts(c["errors"])),
	}}
	if r.Switch {
		r.RelayOn = boolean(c, "output")
		r.Source = text(c, "source")
	}
	return r
}

// firstGeneration returns the readings of relays and their meters, which are parallel
// lists. Temperature and faults belong to the device, so each channel has them.
func (d Document) firstGeneration() []Reading {
	relays, meters, emeters := list(d["relays"]), list(d["meters"]), list(d["emeters"])
	n := min(max(len(relays), len(meters), len(emeters)), maxChannels)
	if n == 0 {
		return nil
	}
	temperature := number(d, "temperature")
	if tmp := object(d["tmp"]); valid(tmp) {
		if t := number(tmp, "tC"); !t.IsZero() {
			temperature = t
		}
	}
	out := make([]Reading, n)
	for i := range out {
		faults := []string{}
		if isTrue(d["overtemperature"]) {
			faults = append(faults, "overtemp") // the second generation's name
		}
		relay := object(at(relays, i))
		if isTrue(d["overpower"]) || isTrue(relay["overpower"]) {
			faults = append(faults, "overpower")
		}
		r := Reading{Channel: i, DeviceUpdate: domain.DeviceUpdate{TemperatureC: temperature, Errors: domain.Some(faults)}}
		if i < len(relays) {
			r.Switch = true
			r.RelayOn = boolean(relay, "ison")
			r.Source = text(relay, "source")
		}
		if m := object(at(meters, i)); valid(m) {
			r.PowerW = number(m, "power")
			r.CounterWh = number(m, "total")
			if wattMinutes, ok := r.CounterWh.Get(); ok {
				r.CounterWh = domain.Some(wattMinutes / 60)
			}
		}
		if m := object(at(emeters, i)); m != nil && valid(m) {
			r.PowerW = number(m, "power")
			r.VoltageV = number(m, "voltage")
			r.CurrentA = number(m, "current")
			r.PowerFactor = number(m, "pf")
			r.CounterWh = number(m, "total") // Wh, unlike that of meters
		}
		out[i] = r
	}
	return out
}

// valid reports whether a meter of the first generation calls its values valid. Some
// devices write is_valid as a text (measured).
func valid(m map[string]any) bool {
	v := m["is_valid"]
	return v != false && v != "false"
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func at(l []any, i int) any {
	if i < len(l) {
		return l[i]
	}
	return nil
}

func isTrue(v any) bool { return v == true }

// member returns an object's member if it is of type T or null. A member of another type
// is absent.
func member[T any](m map[string]any, name string) domain.Optional[T] {
	switch v := m[name].(type) {
	case nil:
		if _, there := m[name]; there {
			return domain.Null[T]()
		}
	case T:
		return domain.Some(v)
	}
	return domain.Optional[T]{}
}

func boolean(m map[string]any, name string) domain.Optional[bool] { return member[bool](m, name) }

func number(m map[string]any, name string) domain.Optional[float64] {
	o := member[float64](m, name)
	if v, known := o.Get(); known && !(math.Abs(v) <= maxReading) {
		return domain.Optional[float64]{}
	}
	return o
}

func text(m map[string]any, name string) domain.Optional[string] {
	o := member[string](m, name)
	if v, known := o.Get(); known {
		return domain.Some(cut(v))
	}
	return o
}

// texts returns the texts of a list, limited in number and length for an event.
func texts(v any) []string {
	out := []string{}
	l := list(v)
	for _, v := range l[:min(len(l), maxList)] {
		if s, ok := v.(string); ok {
			out = append(out, cut(s))
		}
	}
	return out
}
