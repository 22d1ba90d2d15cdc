package status

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// Components without a relay are not channels. A reading has a selection of their members
// as attributes.

// relaylessShape has the members that are kept of such a component (Light, Cover, EM, EM1,
// RGB, CCT, and the lights and rollers of the first generation).
var relaylessShape = func() shape {
	s := shape{
		"output": nil, "source": nil, "errors": nil, "mode": nil,
		"brightness": nil, "white": nil, "rgb": nil, "ct": nil, "temp": nil, "gain": nil,
		"state": nil, "current_pos": nil, "target_pos": nil, "last_direction": nil, "pos_control": nil,
		"apower": nil, "voltage": nil, "current": nil, "freq": nil, "pf": nil, "act_power": nil, "aprt_power": nil, "n_current": nil,
		"total_act_power": nil, "total_aprt_power": nil, "total_current": nil,
		"total_act": nil, "total_act_ret": nil, "total_act_energy": nil, "total_act_ret_energy": nil,
		"aenergy": {"total": nil}, "temperature": {"tC": nil},
		"ison": nil, "power": nil, "is_valid": nil, "total": nil, "stop_reason": nil,
	}
	for _, phase := range []string{"a_", "b_", "c_"} {
		for _, name := range []string{
			"current", "voltage", "act_power", "aprt_power", "pf", "freq", "total_act_energy", "total_act_ret_energy",
		} {
			s[phase+name] = nil
		}
	}
	return s
}()

// relaylessKinds are the prefixes of such components' names, before the number.
var relaylessKinds = []string{"light:", "cover:", "em:", "em1:", "emdata:", "em1data:", "rgb:", "rgbw:", "cct:"}

// relaylessLists are the first generation's lists of such components.
var relaylessLists = []string{"lights", "rollers"}

func isRelayless(name string) bool {
	kind, number, found := strings.Cut(name, ":")
	if !found {
		return slices.Contains(relaylessLists, name)
	}
	_, ok := Channel(number)
	return ok && slices.Contains(relaylessKinds, kind+":")
}

// maxAttributes bounds the attributes of an event, in bytes.
const maxAttributes = 4 << 10

// relaylessReading returns one reading of all such components, or false when there are none.
// It leaves out those that do not fit, from the last on.
func (d Document) relaylessReading() (Reading, bool) {
	attributes := map[string]json.RawMessage{}
	mode := map[string]any{}
	size := len("{}")
	var first map[string]any
	for _, name := range slices.Sorted(maps.Keys(d)) {
		if !isRelayless(name) {
			continue
		}
		kept, ok := relaylessShape.keep(d[name])
		if !ok {
			continue
		}
		raw, err := domain.EncodeJSON(kept)
		if err != nil || size+len(name)+len(raw)+len(`"":,`) > maxAttributes {
			continue // numbers are finite, so it is too large
		}
		size += len(name) + len(raw) + len(`"":,`)
		attributes[name] = raw
		mode[name] = withoutMeasurements(kept)
		if component, isObject := kept.(map[string]any); isObject && first == nil {
			first = component
		}
	}
	if len(attributes) == 0 {
		return Reading{}, false
	}
	r := readChannel("", 0, first)
	if w := number(first, "total_act_power"); !w.IsZero() {
		r.PowerW = w // the sum of three phases (EM)
	} else if w := number(first, "act_power"); !w.IsZero() {
		r.PowerW = w // (EM1)
	}
	if a := number(first, "total_current"); !a.IsZero() {
		r.CurrentA = a
	}
	r.Attributes, _ = domain.EncodeJSON(attributes) // its parts were encoded before
	settled, _ := json.Marshal(mode)
	r.Mode = string(settled)
	return r, true
}

// withoutMeasurements returns the members of a component that are not measurements: they change only
// when somebody operates the device.
func withoutMeasurements(v any) any {
	component, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	out := map[string]any{}
	for name, v := range component {
		switch v.(type) {
		case bool, string:
			out[name] = v
		default:
			if name == "brightness" || name == "target_pos" {
				out[name] = v
			}
		}
	}
	return out
}
