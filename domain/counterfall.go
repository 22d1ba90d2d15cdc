package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// CounterFall is what was true of a device's counter right before it fell.
type CounterFall struct {
	At        time.Time `json:"at"` // when it was seen to have fallen
	CounterWh float64   `json:"counterWh"`
	EnergyWh  float64   `json:"energyWh"` // the lifetime total then, without corrections
}

// UnmarshalJSON reads a fall to the letter, because readers in other languages
// would not agree about one that encoding/json takes: each member is there once,
// there is no other, and the time can be written again.
func (f *CounterFall) UnmarshalJSON(b []byte) error {
	var at Optional[time.Time]
	var counter, energy Optional[float64]
	fields := map[string]json.Unmarshaler{"at": &at, "counterWh": &counter, "energyWh": &energy}
	for written, value := range members(b) {
		name := unquoteName(written)
		field := fields[name]
		if field == nil {
			return fmt.Errorf("must be objects of at, counterWh and energyWh, each there once, without %s", quote(name))
		}
		delete(fields, name)
		if err := field.UnmarshalJSON(value); err != nil {
			if errors.As(err, new(*json.UnmarshalTypeError)) {
				err = errors.New("is of the wrong type")
			}
			return fmt.Errorf("has a bad entry: %s %w", name, err)
		}
	}
	var hasAt, hasCounter, hasEnergy bool
	f.At, hasAt = at.Get()
	f.CounterWh, hasCounter = counter.Get()
	f.EnergyWh, hasEnergy = energy.Get()
	if !hasAt || !hasCounter || !hasEnergy {
		return errors.New("must be objects of at, counterWh and energyWh, each with a value")
	}
	return nil
}

// maxEnergyTold bounds the watt-hours of an update: far more than [MaxEnergyWh],
// because resets and corrections add up, and far less than what overflows when
// such numbers are added and rounded.
const maxEnergyTold = 1e15

func checkEnergy(name string, wh float64) error {
	if !(math.Abs(wh) <= maxEnergyTold) {
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("%s must be -%v to %[2]v", name, float64(maxEnergyTold)))
	}
	return nil
}

func checkFalls(name string, falls []CounterFall) error {
	if len(falls) > maxList {
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("%s holds at most %d entries", name, maxList))
	}
	for i := range falls {
		if err := checkEnergy("counterWh in "+name, falls[i].CounterWh); err != nil {
			return err
		}
		if err := checkEnergy("energyWh in "+name, falls[i].EnergyWh); err != nil {
			return err
		}
	}
	return nil
}
