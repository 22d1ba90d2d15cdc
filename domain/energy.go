package domain

import (
	"fmt"
	"math"
)

// RoundEnergy rounds watt-hours to a thousandth, the finest that devices count, so
// that sums have no float noise. The JavaScript fold rounds in the same way.
func RoundEnergy(wh float64) float64 { return math.Floor(wh*1000+0.5) / 1000 }

// MaxEnergyWh is more than any plug counts in its life.
const MaxEnergyWh = 1e12

// CorrectEnergy sets a device's lifetime energy, which goes on from there.
type CorrectEnergy struct {
	DeviceID DeviceID
	EnergyWh float64
	Reason   string
}

// Validate fails with [CodeInvalidDeviceID] or [CodeInvalidCommand].
func (c CorrectEnergy) Validate() error {
	if err := checkCorrected(CodeInvalidCommand, c.EnergyWh); err != nil {
		return err
	}
	if len(c.Reason) > maxText {
		return Invalid(CodeInvalidCommand, fmt.Sprintf("reason is limited to %d bytes", maxText))
	}
	_, err := ParseDeviceID(string(c.DeviceID))
	return err
}

func checkCorrected(code Code, wh float64) error {
	if !(wh >= 0 && wh <= MaxEnergyWh) {
		return Invalid(code, fmt.Sprintf("energyWh must be 0 to %v", float64(MaxEnergyWh)))
	}
	return nil
}

// Requires implements [Command]. Nothing conflicts with it: the last of several counts.
func (c CorrectEnergy) Requires() Requirements {
	return Requirements{Action: ActionCommand, State: Needs{Devices: []DeviceID{c.DeviceID}}}
}

// Decide fails with [CodeUnknownDevice]. It corrects even to the total that is known,
// because what is known may be old.
func (c CorrectEnergy) Decide(s *State, commandID string) ([]Data, error) {
	if err := s.requireDevice(c.DeviceID); err != nil {
		return nil, err
	}
	return []Data{EnergyCorrected{CommandID: commandID, DeviceID: c.DeviceID, EnergyWh: RoundEnergy(c.EnergyWh), Reason: c.Reason}}, nil
}
