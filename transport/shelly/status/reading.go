package status

import "github.com/plugcast/plugcast/domain"

// Reading is what a document says of one channel. An absent field is not there,
// a null one is there and not known; the units are those of domain.DeviceUpdate.
type Reading struct {
	Channel      int
	RelayOn      domain.Optional[bool]
	PowerW       domain.Optional[float64]
	VoltageV     domain.Optional[float64]
	CurrentA     domain.Optional[float64]
	FrequencyHz  domain.Optional[float64]
	PowerFactor  domain.Optional[float64]
	CounterWh    domain.Optional[float64] // the device's energy counter, in Wh whatever it counts in
	TemperatureC domain.Optional[float64]
	Source       domain.Optional[string]
	Errors       domain.Optional[[]string] // present and empty when there are none
}
