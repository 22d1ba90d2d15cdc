package domain

import "math"

// RoundEnergy rounds watt-hours to a thousandth, the finest that devices count, so
// that sums have no float noise. The JavaScript fold rounds in the same way.
func RoundEnergy(wh float64) float64 { return math.Floor(wh*1000+0.5) / 1000 }
