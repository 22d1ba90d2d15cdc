package domain

import "fmt"

// CorrectEnergy sets a device's lifetime energy. The total continues from there.
type CorrectEnergy struct {
	DeviceID DeviceID
	EnergyWh float64 // 0 to MaxEnergyWh
	Reason   string
}

// Validate fails with [CodeInvalidDeviceID] or [CodeInvalidCommand].
func (c CorrectEnergy) Validate() error {
	if err := checkCorrectedEnergy(CodeInvalidCommand, c.EnergyWh); err != nil {
		return err
	}
	if len(c.Reason) > maxText {
		return Invalid(CodeInvalidCommand, fmt.Sprintf("reason is limited to %d bytes", maxText))
	}
	_, err := ParseDeviceID(string(c.DeviceID))
	return err
}

// Requires implements [Command]. Nothing conflicts with a correction: the last of several applies.
func (c CorrectEnergy) Requires() Requirements {
	return Requirements{Action: ActionCommand, State: Needs{Devices: []DeviceID{c.DeviceID}}}
}

// Decide fails with [CodeUnknownDevice]. It returns an event even if the total is already as wanted, because the known
// total may be outdated.
func (c CorrectEnergy) Decide(s *State, commandID string) ([]Data, error) {
	if err := s.requireDevice(c.DeviceID); err != nil {
		return nil, err
	}
	return []Data{EnergyCorrected{CommandID: commandID, DeviceID: c.DeviceID, EnergyWh: RoundEnergy(c.EnergyWh), Reason: c.Reason}}, nil
}
