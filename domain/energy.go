package domain

import (
	"fmt"
	"math"
)

// MaxEnergyWh is the largest lifetime energy that an operator can set, in watt-hours: more than any plug ever counts.
const MaxEnergyWh = 1e12

// RoundEnergy rounds watt-hours to a thousandth, the finest unit that devices count, so that sums have no
// floating-point noise. The JavaScript fold rounds in the same way.
func RoundEnergy(wh float64) float64 { return math.Floor(wh*1000+0.5) / 1000 }

// maxReportedEnergyWh limits the watt-hours in an update. It is far more than [MaxEnergyWh], because resets and
// corrections add up, and small enough that sums of such numbers do not overflow when they are rounded.
const maxReportedEnergyWh = 1e15

func checkEnergy(name string, wh float64) error {
	if !(math.Abs(wh) <= maxReportedEnergyWh) { // also rejects NaN
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("%s must be -%v to %[2]v", name, float64(maxReportedEnergyWh)))
	}
	return nil
}

func checkCorrectedEnergy(code Code, wh float64) error {
	if !(wh >= 0 && wh <= MaxEnergyWh) { // also rejects NaN
		return Invalid(code, fmt.Sprintf("energyWh must be 0 to %v", float64(MaxEnergyWh)))
	}
	return nil
}
