package rooms

import (
	"slices"

	"github.com/plugcast/plugcast/domain"
)

// Filter says which events a reader wants. The zero Filter lets all through. An
// event that is about no device passes no filter of devices.
type Filter struct {
	Types   []domain.EventType
	Devices []domain.DeviceID
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
