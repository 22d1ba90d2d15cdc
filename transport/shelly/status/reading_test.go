package status

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
)

func none() domain.Optional[[]string] { return domain.Some([]string{}) }

var some = domain.Some[float64]

// The readings of the recorded statuses.
func TestReadingsOfSamples(t *testing.T) {
	t.Parallel()
	metered := Reading{Switch: true, DeviceUpdate: domain.DeviceUpdate{
		RelayOn: domain.Some(true), PowerW: some(399.2), VoltageV: some(240.8), CurrentA: some(1.886),
		FrequencyHz: some(50), CounterWh: some(2574466.629), TemperatureC: some(46.3), Source: domain.Some("init"), Errors: none(),
	}}
	old := Reading{Switch: true, DeviceUpdate: domain.DeviceUpdate{
		RelayOn: domain.Some(true), PowerW: some(43.54), CounterWh: some(2632.0 / 60), TemperatureC: some(31.49),
		Source: domain.Some("http"), Errors: none(),
	}}
	off := Reading{Switch: true, DeviceUpdate: domain.DeviceUpdate{
		RelayOn: domain.Some(false), PowerW: some(0), CounterWh: some(2632.0 / 60),
		Source: domain.Some("cloud"), Errors: none(),
	}}
	all := samples(t)
	for path, want := range map[string][]Reading{
		"rpc-notifyfullstatus-outbound-connect/params":           {metered},
		"rpc-response-getstatus-plugsg3/result":                  {metered},
		"cloud-rte-statusonchange-gen2-full/status":              {metered},
		"cloud-http-all-status/data/devices_status/8cbfea9a1b2c": {metered},
		"cloud-http-all-status/data/devices_status/5432045b561c": nil, // measures the air, and switches nothing
		"cloud-http-all-status/data/devices_status/b923fa":       {off},
		"gen1-http-status-shplgs":                                {old},
		"rpc-notifystatus-cloud-only/params":                     nil,
		"cloud-rte-statusonchange-gen2-sys-only/status":          nil,
		"rpc-notifystatus-counts-fw2/params":                     {{Switch: true, DeviceUpdate: domain.DeviceUpdate{Errors: none()}}},
		"cloud-rte-statusonchange-gen2-partial-power/status": {
			{Switch: true, DeviceUpdate: domain.DeviceUpdate{PowerW: some(12.4), Errors: none()}}},
		"cloud-integrator-statusonchange/status": {
			{Switch: true, DeviceUpdate: domain.DeviceUpdate{RelayOn: domain.Some(true), PowerW: some(41.2), Errors: none()}}},
		"rpc-notifyfullstatus-mqtt-plus1/params": {
			{Switch: true, DeviceUpdate: domain.DeviceUpdate{RelayOn: domain.Some(true), TemperatureC: some(48.4),
				Source: domain.Some("SHC"), Errors: none()}}},
		"rpc-notifystatus-overpower/params": {
			{Switch: true, DeviceUpdate: domain.DeviceUpdate{RelayOn: domain.Some(false), Errors: domain.Some([]string{"overpower"})}}},
	} {
		if all[path] == nil {
			t.Errorf("there is no %s", path)
			continue
		}
		if diff := cmp.Diff(want, parse(t, string(all[path])).Readings(), cmp.Comparer(sameReading)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

// The readings of rare statuses.
func TestReadings(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string][]Reading{
		`{"pm1:0":{"apower":5,"output":true,"source":"x","aenergy":{"total":7}}}`: {
			{DeviceUpdate: domain.DeviceUpdate{PowerW: some(5), CounterWh: some(7), Errors: none()}}},
		`{"pm1:0":{"apower":5},"switch:0":{"output":false},"pm1:3":[]}`: {
			{Switch: true, DeviceUpdate: domain.DeviceUpdate{RelayOn: domain.Some(false), Errors: none()}},
			{Channel: 3, DeviceUpdate: domain.DeviceUpdate{Errors: none()}}},
		`{"switch:0":{"output":null,"apower":null,"temperature":{"tC":null},"errors":null}}`: {
			{Switch: true, DeviceUpdate: domain.DeviceUpdate{RelayOn: domain.Null[bool](), PowerW: domain.Null[float64](),
				TemperatureC: domain.Null[float64](), Errors: none()}}},
		`{"switch:10":{},"switch:9":{},"switch:255":{},"relays":[{"ison":true}]}`: {
			{Channel: 9, Switch: true, DeviceUpdate: domain.DeviceUpdate{Errors: none()}},
			{Channel: 10, Switch: true, DeviceUpdate: domain.DeviceUpdate{Errors: none()}},
			{Channel: 255, Switch: true, DeviceUpdate: domain.DeviceUpdate{Errors: none()}}},
		`{"switch:0":7,"switch:1":null,"switch:2":[1],"switch:256":{},"switch:01":{},"Switch:0":{},"switch":{}}`: nil,
		// A relay without a meter, and a meter without a relay.
		`{"relays":[{"ison":true},{"ison":false,"overpower":true}],"meters":[{"power":1,"total":60}],` +
			`"tmp":{"tC":30,"is_valid":false},"temperature":29}`: {
			{Switch: true, DeviceUpdate: domain.DeviceUpdate{
				RelayOn: domain.Some(true), PowerW: some(1), CounterWh: some(1), TemperatureC: some(29), Errors: none()}},
			{Channel: 1, Switch: true, DeviceUpdate: domain.DeviceUpdate{
				RelayOn: domain.Some(false), TemperatureC: some(29), Errors: domain.Some([]string{"overpower"})}}},
		`{"relays":[],"emeters":[{"power":-3,"total":60,"voltage":230,"current":0.1,"pf":-0.5},{"power":9,"is_valid":"false"}]}`: {
			{DeviceUpdate: domain.DeviceUpdate{
				PowerW: some(-3), VoltageV: some(230), CurrentA: some(0.1), PowerFactor: some(-0.5), CounterWh: some(60), Errors: none()}},
			{Channel: 1, DeviceUpdate: domain.DeviceUpdate{Errors: none()}}},
		`{"relays":[7,null,{"ison":"on"}]}`: {
			{Switch: true, DeviceUpdate: domain.DeviceUpdate{Errors: none()}},
			{Channel: 1, Switch: true, DeviceUpdate: domain.DeviceUpdate{Errors: none()}},
			{Channel: 2, Switch: true, DeviceUpdate: domain.DeviceUpdate{Errors: none()}}},
		`{"relays":{"ison":true},"meters":5}`: nil,
	} {
		if diff := cmp.Diff(want, parse(t, raw).Readings(), cmp.Comparer(sameReading)); diff != "" {
			t.Errorf("%s: %s", raw, diff)
		}
	}
}
