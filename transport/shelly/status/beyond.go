package status

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// Components that have no relay are not channels; a reading passes a selection of
// their members on as attributes.

// beyondShape lists the members that are kept of such a component (Light, Cover, EM, EM1, RGB, CCT,
// and the lights and rollers of the first generation).
var beyondShape = func() shape {
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

// beyondKinds are the names of such components before the number.
var beyondKinds = []string{"light:", "cover:", "em:", "em1:", "emdata:", "em1data:", "rgb:", "rgbw:", "cct:"}

// beyondLists are the lists of such components in the first generation.
var beyondLists = []string{"lights", "rollers"}

func isBeyond(name string) bool {
	kind, number, found := strings.Cut(name, ":")
	if !found {
		return slices.Contains(beyondLists, name)
	}
	_, ok := Channel(number)
	return ok && slices.Contains(beyondKinds, kind+":")
}

// maxAttributes bounds the attributes of an event, in bytes.
const maxAttributes = 4 << 10

// beyondRelays is the reading of a device as a whole that has such components, or
// false when it has none. Those that do not fit are left out, from the last on.
func (d Document) beyondRelays() (Reading, bool) {
	attributes := map[string]json.RawMessage{}
	mode := map[string]any{}
	size := len("{}")
	var first map[string]any
	for _, name := range slices.Sorted(maps.Keys(d)) {
		if !isBeyond(name) {
			continue
		}
		kept, ok := beyondShape.keep(d[name])
		if !ok {
			continue
		}
		raw, err := domain.EncodeJSON(kept)
		if err != nil || size+len(name)+len(raw)+len(`"":,`) > maxAttributes {
			continue // numbers are finite, so it is too much
		}
		size += len(name) + len(raw) + len(`"":,`)
		attributes[name] = raw
		mode[name] = settled(kept)
		if component, isObject := kept.(map[string]any); isObject && first == nil {
			first = component
		}
	}
	if len(attributes) == 0 {
		return Reading{}, false
	}
	r := readChannel("", 0, first)
	if w := number(first, "total_act_power"); !w.IsZero() {
		r.PowerW = w // of three phases together (EM)
	} else if w := number(first, "act_power"); !w.IsZero() {
		r.PowerW = w // (EM1)
	}
	if a := number(first, "total_current"); !a.IsZero() {
		r.CurrentA = a
	}
	r.Attributes, _ = domain.EncodeJSON(attributes) // of what was encoded
	settled, _ := json.Marshal(mode)
	r.Mode = string(settled)
	return r, true
}

// settled is what of a component is no measurement: it changes when somebody does
// something.
func settled(v any) any {
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
