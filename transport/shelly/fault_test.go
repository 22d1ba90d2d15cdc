package shelly

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// These are the cases that broke other clients, under their names in FACTS.md.

func TestFaultCasesMerge(t *testing.T)  { runAll(t, mergeFaults) }
func TestFaultCasesOrder(t *testing.T)  { runAll(t, orderFaults) }
func TestFaultCasesEnergy(t *testing.T) { runAll(t, energyFaults) }

func runAll(t *testing.T, checks map[string]func(*testing.T)) {
	t.Parallel()
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t)
		})
	}
}

var mergeFaults = map[string]func(*testing.T){
	"partial without output": func(t *testing.T) {
		b := connected(t)
		b.delta(sample(t, "rpc-notifystatus-apower-only", "params"))
		b.take(time.Second)
		b.want(plug, map[string]string{"relayOn": "true", "powerW": "339.5", "voltageV": "240.8", "currentA": "1.886"})
	},
	"output-only": func(t *testing.T) {
		b := connected(t)
		b.delta(sample(t, "cloud-rte-statusonchange-gen2-partial-output", "status"))
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "false", "powerW": "399.2", "source": `"SHC"`, "energyWh": "2574466.629"})
	},
	"no switch component": func(t *testing.T) {
		b := connected(t)
		b.delta(sample(t, "rpc-notifystatus-cloud-only", "params"))
		b.delta(sample(t, "cloud-rte-statusonchange-gen2-sys-only", "status"))
		if u := b.take(time.Hour); u != nil {
			t.Fatalf("nothing changed, and yet: %+v", u)
		}
		b.want(plug, map[string]string{"relayOn": "true"})
	},
	"null tombstone": func(t *testing.T) {
		b := connected(t)
		b.delta(sample(t, "rpc-notifystatus-overpower", "params"))
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "false", "errors": `["overpower"]`})
		b.delta(sample(t, "rpc-notifystatus-null-tombstone", "params"))
		b.delta(`{"switch:0":{"temperature":{"tC":null}}}`)
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "false", "errors": "[]", "temperatureC": ""})
		b.delta(`{"switch:0":null}`)
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "", "powerW": "", "errors": "", "energyWh": "2574466.629"})
	},
	"0 and false values": func(t *testing.T) {
		b := connected(t)
		b.delta(sample(t, "rpc-notifystatus-off-with-meter", "params"))
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "false", "powerW": "0", "currentA": "0", "voltageV": "240.8"})
	},
	"arrays replaced": func(t *testing.T) {
		b := connected(t)
		b.delta(`{"switch:0":{"errors":["overtemp","overvoltage"]}}`)
		b.take(0)
		b.delta(`{"switch:0":{"errors":["overpower"]}}`)
		b.take(0)
		b.want(plug, map[string]string{"errors": `["overpower"]`})
		b.delta(`{"switch:0":{"errors":[]}}`)
		b.take(0)
		b.want(plug, map[string]string{"errors": "[]"})
	},
	"`[]` for `{}`": func(t *testing.T) {
		b := connected(t)
		b.delta(`{"ble":[],"switch:0":[],"sys":{"available_updates":[]}}`)
		b.delta(`{"switch:0":{"aenergy":[],"temperature":[],"apower":12}}`)
		b.take(time.Second)
		b.want(plug, map[string]string{"relayOn": "true", "powerW": "12", "temperatureC": "46.3", "counterWh": "2574466.629"})
		b.full(`{"switch:0":{"output":true,"aenergy":[]},"switch:1":[]}`)
		b.delta(`{"switch:0":{"aenergy":{"total":2574467}},"switch:1":{"output":false}}`)
		b.take(time.Minute)
		b.want(plug, map[string]string{"counterWh": "2574467"})
		b.want(plug+":1", map[string]string{"relayOn": "false"})
	},
	"component without id": func(t *testing.T) {
		b := connected(t)
		b.delta(sample(t, "rpc-notifystatus-minute-beat", "params"))
		b.take(time.Minute)
		b.want(plug, map[string]string{"relayOn": "true", "powerW": "0", "voltageV": "234.5", "frequencyHz": "50.09"})
	},
	"unmetered plug (no apower ≠ 0)": func(t *testing.T) {
		b := setup(t)
		b.full(sample(t, "rpc-notifyfullstatus-mqtt-plus1", "params"))
		u := b.take(0)
		if len(u) != 1 || !u[0].PowerW.IsZero() || !u[0].EnergyWh.IsZero() || !u[0].VoltageV.IsZero() {
			t.Fatalf("a plug without a meter says %+v", u)
		}
		b.want(plug, map[string]string{"relayOn": "true", "temperatureC": "48.4"})
	},
	"4-channel strip": func(t *testing.T) {
		b := setup(t)
		b.full(`{"switch:2":{"id":2,"output":true,"apower":5},"switch:0":{"id":0,"output":false},` +
			`"switch:3":{"id":3,"output":false},"switch:1":{"id":1,"output":true}}`)
		var ids []domain.DeviceID
		for _, u := range b.take(0) {
			ids = append(ids, u.DeviceID)
		}
		want := []domain.DeviceID{plug, plug + ":1", plug + ":2", plug + ":3"}
		if !slices.Equal(ids, want) || !slices.Equal(b.Channels(), want) {
			t.Fatalf("updates of %v, channels %v", ids, b.Channels())
		}
		b.want(plug+":2", map[string]string{"relayOn": "true", "powerW": "5", "channel": "2"})
		b.delta(`{"switch:2":{"output":false}}`)
		if u := b.take(0); len(u) != 1 || u[0].DeviceID != plug+":2" {
			t.Fatalf("one switch of four changed, and yet: %+v", u)
		}
		b.want(plug+":1", map[string]string{"relayOn": "true"})
	},
	"gen1 `relays[]`": func(t *testing.T) {
		b := setup(t)
		b.full(sample(t, "cloud-rte-statusonchange-gen1-plugs", "status"))
		b.take(0)
		b.want(plug, map[string]string{
			"relayOn": "true", "powerW": "43.54", "temperatureC": "31.49", "source": `"cloud"`, "errors": "[]", "channel": "0",
			"deviceTime": `"2024-02-07T18:57:21Z"`,
		})
		b.delta(`{"meters":[{"power":0,"is_valid":true,"total":2633}]}`)
		b.take(time.Second)
		b.want(plug, map[string]string{"relayOn": "true", "powerW": "0"})
		b.delta(`{"relays":[{"ison":false,"overpower":true}],"overtemperature":true}`)
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "false", "errors": `["overtemp","overpower"]`})
	},
	"NaN/huge/string numbers": func(t *testing.T) {
		b := connected(t)
		for _, raw := range []string{`{"switch:0":{"apower":NaN}}`, `{"switch:0":{"apower":Infinity}}`} {
			if _, err := status.Parse([]byte(raw)); !errors.Is(err, status.ErrNotJSON) {
				t.Fatalf("%s: %v", raw, err)
			}
		}
		b.delta(`{"ts":1e999,"switch:0":{"apower":1e999,"output":true,"aenergy":{"total":1e300}}}`)
		b.take(time.Hour)
		b.want(plug, map[string]string{"relayOn": "true", "powerW": "399.2", "energyWh": "2574466.629"})
		b.delta(`{"switch:0":{"apower":"12","output":"off","voltage":[1],"errors":"overpower","aenergy":7}}`)
		b.take(time.Hour)
		b.want(plug, map[string]string{"relayOn": "", "powerW": "", "voltageV": "", "errors": "[]", "energyWh": "2574466.629"})
	},
	"deep nesting": func(t *testing.T) {
		b := connected(t)
		raw := strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000)
		if _, err := status.Parse([]byte(raw)); !errors.Is(err, status.ErrTooDeep) {
			t.Fatal(err)
		}
		b.delta(`{"switch:0":` + strings.Repeat(`{"aenergy":`, 14) + "1" + strings.Repeat("}", 14) + "}")
		b.take(time.Hour)
		b.want(plug, map[string]string{"relayOn": "true", "energyWh": "2574466.629"})
	},
	"`__proto__`-like keys": func(t *testing.T) {
		b := connected(t)
		b.delta(`{"__proto__":{"output":false},"constructor":{"prototype":{"apower":0}},"switch:__proto__":{"output":false},` +
			`"switch:0":{"__proto__":{"output":false},"Output":false},"switch:00":{"output":false},"switch:-1":{"output":false},` +
			`"switch:256":{"output":false},"switch:":{"output":false}}`)
		if u := b.take(time.Hour); u != nil {
			t.Fatalf("names that mean nothing made %+v", u)
		}
		if ids := b.Channels(); len(ids) != 1 {
			t.Fatal(ids)
		}
	},
	"> 10 KB frame": func(t *testing.T) {
		b := connected(t)
		var raw strings.Builder
		raw.WriteString(`{"ts":1786033290,"switch:0":{"output":false}`)
		for i := range 100 {
			fmt.Fprintf(&raw, `,"input:%d":{"id":%d,"state":false,"note":%q}`, i, i, strings.Repeat("x", 100))
		}
		raw.WriteString("}")
		if raw.Len() < 10_000 {
			t.Fatal("the frame is too small for the test")
		}
		b.delta(raw.String())
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "false", "powerW": "399.2"})
	},
	"> 256 KiB frame": func(t *testing.T) {
		raw := `{"a":"` + strings.Repeat("x", 256<<10) + `"}`
		if _, err := status.Parse([]byte(raw)); !errors.Is(err, status.ErrTooLarge) {
			t.Fatal(err)
		}
	},
}

var orderFaults = map[string]func(*testing.T){
	"equal serial": func(t *testing.T) {
		// A duplicate by serial with other content is still the newest.
		b := connected(t)
		b.delta(`{"serial":7,"switch:0":{"output":false}}`)
		b.take(0)
		b.delta(`{"serial":7,"switch:0":{"output":true}}`)
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "true"})
	},
	"ts in the past": func(t *testing.T) {
		b := connected(t)
		b.delta(`{"ts":1786030000.5,"switch:0":{"output":false}}`)
		if u := b.take(0); len(u) != 1 || !u[0].DeviceTime.IsZero() {
			t.Fatalf("%+v", u)
		}
		b.want(plug, map[string]string{"relayOn": "false", "deviceTime": `"2026-08-06T16:20:27.41Z"`})
	},
	"ts in the future (+1.7 s)": func(t *testing.T) {
		b := connected(t)
		b.delta(fmt.Sprintf(`{"ts":%.2f,"switch:0":{"output":false}}`, float64(b.now.UnixMilli())/1000+1.7))
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "false", "deviceTime": `"2026-08-06T16:20:31.7Z"`})
		b.delta(`{"ts":1786033230.2,"switch:0":{"output":true}}`) // the clock was set right
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "true", "deviceTime": `"2026-08-06T16:20:31.7Z"`})
	},
	"ts missing": func(t *testing.T) {
		b := setup(t)
		b.full(sample(t, "rpc-notifyfullstatus-outbound-just-booted", "params"))
		if u := b.take(0); len(u) != 1 || !u[0].DeviceTime.IsZero() {
			t.Fatalf("%+v", u)
		}
		b.want(plug, map[string]string{"relayOn": "false", "energyWh": "0", "deviceTime": ""})
		b.delta(`{"switch:0":{"output":true}}`)
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "true", "deviceTime": ""})
	},
	"ts integer": func(t *testing.T) {
		b := connected(t)
		b.delta(`{"ts":1786033260,"switch:0":{"output":false}}`)
		b.take(0)
		b.want(plug, map[string]string{"deviceTime": `"2026-08-06T16:21:00Z"`})
	},
	"snapshot older than buffered delta": func(t *testing.T) {
		b := setup(t)
		b.delta(`{"ts":1786033228.5,"switch:0":{"output":false}}`) // after the snapshot
		b.delta(`{"ts":1786033220.5,"switch:0":{"apower":7}}`)     // before it
		b.delta(`{"switch:0":{"voltage":233}}`)                    // the outcome is unknown
		if b.Ready() || b.take(0) != nil {
			t.Fatal("deltas alone were taken for a state")
		}
		b.full(sample(t, "cloud-rte-statusonchange-gen2-full", "status"))
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "false", "powerW": "399.2", "voltageV": "233", "currentA": "1.886"})
	},
	"late StatusOnChange after Online:0": func(t *testing.T) {
		b := connected(t)
		b.SetOnline(false)
		if u := b.take(time.Hour); u != nil {
			t.Fatalf("silence is announced elsewhere, and yet: %+v", u)
		}
		b.delta(`{"switch:0":{"output":false}}`)
		b.take(0)
		b.want(plug, map[string]string{"relayOn": "false", "online": "false"})
	},
	"OLD output up to 30 s after Set": func(t *testing.T) {
		b := connected(t)
		b.delta(`{"ts":1786033299,"switch:0":{"output":false}}`)
		b.take(0)
		b.Expect(0, SwitchCommand{CommandID: "cmd-1", CorrelationID: "cor-1", On: true}, b.now.Add(time.Minute))
		b.delta(sample(t, "rpc-notifystatus-stale-output-fw201b1", "params"))
		for _, u := range b.take(time.Second) {
			if u.CausationID != "" {
				t.Fatalf("the old output was taken for the command's: %+v", u)
			}
		}
		b.delta(`{"ts":1786033329,"switch:0":{"output":true}}`)
		u := b.take(29 * time.Second)
		if len(u) != 1 || u[0].CausationID != "cmd-1" || u[0].CorrelationID != "cor-1" {
			t.Fatalf("%+v", u)
		}
		b.want(plug, map[string]string{"relayOn": "true"})
	},
	"duplicate delivery": func(t *testing.T) {
		b := connected(t)
		frame := sample(t, "rpc-notifystatus-off-with-meter", "params")
		b.delta(frame)
		if u := b.take(0); len(u) != 1 {
			t.Fatalf("%+v", u)
		}
		b.delta(frame)
		b.delta(frame)
		if u := b.take(time.Hour); u != nil {
			t.Fatalf("%+v", u)
		}
	},
}

var energyFaults = map[string]func(*testing.T){
	"Wmin vs Wh": func(t *testing.T) {
		b := setup(t)
		b.full(sample(t, "cloud-rte-statusonchange-gen1-plugs", "status"))
		b.take(0)
		b.want(plug, map[string]string{"energyWh": "43.867", "counterWh": "43.867"})
		b.full(`{"emeters":[{"power":12.5,"voltage":230,"pf":0.9,"is_valid":true,"total":2632}],"relays":[{"ison":false}]}`)
		b.take(0)
		b.want(plug, map[string]string{"counterWh": "2632", "powerW": "12.5", "relayOn": "false", "powerFactor": "0.9"})
	},
	"counter goes down (reset)": func(t *testing.T) {
		b := setup(t)
		for _, step := range []struct{ counter, energy float64 }{
			{1000, 1000}, {1250, 1250}, {3, 1253}, {3, 1253}, {10, 1260}, {0, 1260}, {5, 1265},
		} {
			b.full(counter(step.counter))
			b.take(time.Minute)
			b.want(plug, map[string]string{"energyWh": fmt.Sprint(step.energy), "counterWh": fmt.Sprint(step.counter)})
		}
	},
	"counter goes down a little": func(t *testing.T) {
		b := setup(t)
		// The counter has its old value again within minutes, so it was not reset, and 1005 waits for it.
		for _, step := range []struct{ counter, energy float64 }{
			{1000, 1000}, {990, 1000}, {995, 1005}, {1000, 1005}, {1004, 1005}, {1006, 1006},
		} {
			b.full(counter(step.counter))
			b.take(time.Minute)
			b.want(plug, map[string]string{"energyWh": fmt.Sprint(step.energy), "counterWh": fmt.Sprint(step.counter)})
		}
	},
	"restart of the device": func(t *testing.T) {
		b := setup(t)
		b.full(`{"relays":[{"ison":true}],"meters":[{"power":60,"total":6000}]}`) // 100 Wh
		b.take(0)
		b.full(`{"relays":[{"ison":false}],"meters":[{"power":0,"total":0}]}`)
		b.take(time.Minute)
		b.full(`{"relays":[{"ison":true}],"meters":[{"power":60,"total":60}]}`)
		b.take(time.Minute)
		b.want(plug, map[string]string{"energyWh": "101", "counterWh": "1"})
	},
	"gap of hours": func(t *testing.T) {
		b := setup(t)
		b.full(counter(1000))
		b.take(0)
		b.now = b.now.Add(9 * time.Hour)
		b.restart()
		b.full(counter(1900))
		b.take(0)
		b.want(plug, map[string]string{"energyWh": "1900"})
		b.now = b.now.Add(9 * time.Hour)
		b.restart()
		b.full(counter(20)) // it was reset in between: its count before that is lost
		b.take(0)
		b.want(plug, map[string]string{"energyWh": "1920", "counterWh": "20"})
	},
	"ret_aenergy": func(t *testing.T) {
		b := setup(t)
		b.full(`{"switch:0":{"output":true,"aenergy":{"total":100},"ret_aenergy":{"total":40}}}`)
		b.take(0)
		b.delta(`{"switch:0":{"ret_aenergy":{"total":45}}}`)
		if u := b.take(time.Hour); u != nil {
			t.Fatalf("the returned counter is within the total already: %+v", u)
		}
		b.want(plug, map[string]string{"energyWh": "100"})
	},
	"is_valid false": func(t *testing.T) {
		b := setup(t)
		for _, valid := range []string{`true`, `"true"`} {
			b.full(`{"relays":[{"ison":true}],"meters":[{"power":60,"total":6000,"is_valid":` + valid + `}]}`)
			b.take(time.Minute)
			b.want(plug, map[string]string{"powerW": "60", "energyWh": "100"})
		}
		b.full(`{"relays":[{"ison":true}],"meters":[{"power":0,"total":0,"is_valid":false}]}`)
		b.take(time.Minute)
		b.want(plug, map[string]string{"relayOn": "true", "powerW": "", "energyWh": "100"})
	},
	"missing by_minute": func(t *testing.T) {
		b := setup(t)
		b.full(sample(t, "rpc-notifyfullstatus-outbound-just-booted", "params"))
		b.take(0)
		b.delta(`{"switch:0":{"aenergy":{"total":1.5}}}`)
		b.take(time.Minute)
		b.want(plug, map[string]string{"energyWh": "1.5"})
	},
	"local-time gen1 timestamp": func(t *testing.T) {
		b := setup(t)
		b.full(`{"relays":[{"ison":true}],"meters":[{"power":1,"timestamp":1707335841,"total":60}]}`)
		b.take(0)
		b.want(plug, map[string]string{"deviceTime": ""})
		b.full(sample(t, "cloud-rte-statusonchange-gen1-plugs", "status"))
		b.take(time.Second)
		b.want(plug, map[string]string{"deviceTime": `"2024-02-07T18:57:21Z"`})
	},
	"what is no number": func(t *testing.T) {
		var e energy
		for _, c := range []float64{5, math.NaN(), math.Inf(1), math.Inf(-1), -1, 7} {
			e.count(c, domain.Optional[float64]{}, epoch)
		}
		if e.total != domain.Some(7.0) || e.counter != domain.Some(7.0) {
			t.Fatalf("%+v", e)
		}
	},
	"energy published by others": func(t *testing.T) {
		e := energyOf(&domain.DeviceUpdate{EnergyWh: domain.Some(500.0)}, epoch)
		e.count(80, domain.Optional[float64]{}, epoch)
		e.count(90, domain.Optional[float64]{}, epoch)
		if e.total != domain.Some(510.0) || e.counter != domain.Some(90.0) {
			t.Fatalf("%+v", e)
		}
	},
}

// counter is a full status of a switch with that energy counter, in Wh.
func counter(wh float64) string {
	return fmt.Sprintf(`{"switch:0":{"output":true,"aenergy":{"total":%v}}}`, wh)
}
