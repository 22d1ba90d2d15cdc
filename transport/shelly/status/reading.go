package status

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// Reading is what a document says of one channel: the fields of an update that a
// device can tell. An absent field is not there, a null one is there and not known.
// CounterWh is the device's energy counter, in Wh whatever it counts in; Errors is
// present, and empty when there are none.
type Reading struct {
	Channel int
	Switch  bool // it has a relay, whether or not it says what that does
	// Mode is of a device without a relay: as long as it is the same, Attributes
	// differ in measurements alone.
	Mode string
	domain.DeviceUpdate
}

// mostReading is beyond what any plug can mean: a number over it is a fault, and
// counts as missing. As a counter it would spoil a lifetime's energy for ever.
const mostReading = 1e12

// Readings are the channels of the document, in order: the switches and meters
// (pm1) of the second generation, or else the relays of the first. A switch and a
// meter of one number are one channel, and the switch's. A device of another kind,
// such as a dimmer, a cover or a meter of three phases, is channel 0, without a relay.
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
	if extra, ok := d.beyondRelays(); ok && !slices.ContainsFunc(out, func(r Reading) bool { return r.Channel == 0 }) {
		out = append(out, extra)
	}
	slices.SortFunc(out, func(a, b Reading) int { return cmp.Compare(a.Channel, b.Channel) })
	return out
}

// The kinds of component that are a channel.
const (
	switchKind = "switch:" // Switch
	meterKind  = "pm1:"    // PM1: a meter without a relay
)

// channelName takes the name of a channel's component apart.
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

// Channel reads a channel's number, 0 to 255, as it is in names: without sign or
// leading zeros, so that a channel has one name.
func Channel(s string) (channel int, ok bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	return int(n), true
}

// componentOf is a component, which the cloud writes as [] when it is empty.
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
		r.RelayOn = truth(c, "output")
		r.Source = text(c, "source")
	}
	return r
}

// firstGeneration reads relays and their meters, which are lists side by side.
// The temperature is the device's, and so are its faults: each channel has them.
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
			faults = append(faults, "overtemp") // as the second generation calls it
		}
		relay := object(at(relays, i))
		if isTrue(d["overpower"]) || isTrue(relay["overpower"]) {
			faults = append(faults, "overpower")
		}
		r := Reading{Channel: i, DeviceUpdate: domain.DeviceUpdate{TemperatureC: temperature, Errors: domain.Some(faults)}}
		if i < len(relays) {
			r.Switch = true
			r.RelayOn = truth(relay, "ison")
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

// valid reports whether a meter of the first generation vouches for what it
// says. Its word has been seen as a text (measured).
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

// member is an object's member if it is of type T: null is null, and anything
// else is missing.
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

func truth(m map[string]any, name string) domain.Optional[bool] { return member[bool](m, name) }

func number(m map[string]any, name string) domain.Optional[float64] {
	o := member[float64](m, name)
	if v, known := o.Get(); known && !(math.Abs(v) <= mostReading) {
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

// texts are the texts of a list, as many and as long as an event may carry.
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
