package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// CounterFall records a device's energy counter as it was right before the counter fell.
type CounterFall struct {
	At        time.Time `json:"at"` // when the holder of the device noticed the fall
	CounterWh float64   `json:"counterWh"`
	EnergyWh  float64   `json:"energyWh"` // the lifetime total at that time, without corrections
}

// UnmarshalJSON is stricter than encoding/json, whose result readers in other languages might not share: each member must
// be there exactly once and have a value, there must be no other, and RFC 3339 must be able to express the time in UTC.
func (f *CounterFall) UnmarshalJSON(b []byte) error {
	var at Optional[time.Time]
	var counter, energy Optional[float64]
	fields := map[string]json.Unmarshaler{"at": &at, "counterWh": &counter, "energyWh": &energy}
	for written, value := range members(b) {
		name := unquoteName(written)
		field := fields[name]
		if field == nil {
			return fmt.Errorf("must contain objects with at, counterWh and energyWh, each once, and not %s", quote(name))
		}
		delete(fields, name)
		if err := field.UnmarshalJSON(value); err != nil {
			if errors.As(err, new(*json.UnmarshalTypeError)) {
				err = errors.New("has the wrong type")
			}
			return fmt.Errorf("has an invalid entry: %s %w", name, err)
		}
	}
	var hasAt, hasCounter, hasEnergy bool
	f.At, hasAt = at.Get()
	f.CounterWh, hasCounter = counter.Get()
	f.EnergyWh, hasEnergy = energy.Get()
	if !hasAt || !hasCounter || !hasEnergy {
		return errors.New("must contain objects with at, counterWh and energyWh, each with a value")
	}
	return nil
}

func checkCounterFalls(name string, falls []CounterFall) error {
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
