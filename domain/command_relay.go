package domain

import (
	"fmt"
	"time"
)

// MaxToggleAfter is the longest time after which a relay can switch back by itself.
const MaxToggleAfter = 24 * time.Hour

// SwitchRelay asks the holder of the device to switch its relay.
type SwitchRelay struct {
	DeviceID    DeviceID
	On          bool
	ToggleAfter time.Duration // after which the device switches back; 0 is never
}

// Validate fails with [CodeInvalidDeviceID] or [CodeInvalidCommand].
func (c SwitchRelay) Validate() error {
	if c.ToggleAfter < 0 || c.ToggleAfter > MaxToggleAfter {
		return Invalid(CodeInvalidCommand, fmt.Sprintf("toggleAfter must be 0 to %v", MaxToggleAfter))
	}
	_, err := ParseDeviceID(string(c.DeviceID))
	return err
}

// Requires implements [Command]. Nothing conflicts with it: the device carries out two commands one after the other.
func (c SwitchRelay) Requires() Requirements {
	return Requirements{Action: ActionCommand, State: Needs{Devices: []DeviceID{c.DeviceID}}}
}

// Decide fails with [CodeUnknownDevice]. It returns an event even if the relay is already as wanted, because the known
// state may be outdated.
func (c SwitchRelay) Decide(s *State, commandID string) ([]Data, error) {
	if err := s.requireDevice(c.DeviceID); err != nil {
		return nil, err
	}
	return []Data{RelaySwitchRequested{
		CommandID: commandID, DeviceID: c.DeviceID, On: c.On, ToggleAfterS: c.ToggleAfter.Seconds(),
	}}, nil
}
