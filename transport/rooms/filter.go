package rooms

import (
	"fmt"
	"slices"

	"github.com/plugcast/plugcast/domain"
)

// Filter says which events a reader wants. The zero Filter lets all through. An
// event that is about no device passes no filter of devices.
type Filter struct {
	Types   []domain.EventType
	Devices []domain.DeviceID
}

// CodeInvalidFilter is the code of a filter that cannot be.
const CodeInvalidFilter domain.Code = "invalid-filter"

// Bounds of a filter that a client asks for.
const (
	maxTypes      = 64
	maxTypeLength = 64 // bytes
	maxDevices    = 256
)

// ParseFilter makes a Filter of what a client asks for. A type that nobody knows
// is fine: it may come to be. Errors are a [domain.Error].
func ParseFilter(types, devices []string) (Filter, error) {
	var f Filter
	if len(types) > maxTypes || len(devices) > maxDevices {
		return f, domain.Invalid(CodeInvalidFilter, fmt.Sprintf("a filter names at most %d types and %d devices", maxTypes, maxDevices))
	}
	for _, name := range types {
		if name == "" || len(name) > maxTypeLength {
			return f, domain.Invalid(CodeInvalidFilter, fmt.Sprintf("the name of a type is 1 to %d characters", maxTypeLength))
		}
		f.Types = append(f.Types, domain.EventType(name))
	}
	for _, name := range devices {
		device, err := domain.ParseDeviceID(name)
		if err != nil {
			return f, err
		}
		f.Devices = append(f.Devices, device)
	}
	return f, nil
}

func (f *Filter) none() bool { return len(f.Types) == 0 && len(f.Devices) == 0 }

// match looks at the type first: the device has to be parsed for.
func (f *Filter) match(e *Encoded) bool {
	if len(f.Types) > 0 && !slices.Contains(f.Types, e.Type) {
		return false
	}
	if len(f.Devices) == 0 {
		return true
	}
	device := e.about().device
	return device != "" && slices.Contains(f.Devices, device)
}
