package outbound

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
)

// The server admits devices with odd frames that can still be decoded.
func TestOddFramesAreTaken(t *testing.T) {
	t.Parallel()
	const status = `{"src":"shellyplugsg3-8cbfea9a1b2c","dst":"ws","method":"NotifyFullStatus",` +
		`"params":{"switch:0":{"output":true,"source":"b%stton"}}}`
	for name, c := range map[string]struct {
		frame string
		kind  int
	}{
		"a bad byte":          {fmt.Sprintf(status, "\xfc"), websocket.TextMessage},
		"a byte order mark":   {"\xef\xbb\xbf" + fmt.Sprintf(status, "u"), websocket.TextMessage},
		"a binary message":    {fmt.Sprintf(status, "u"), websocket.BinaryMessage},
		"a NUL":               {fmt.Sprintf(status, `\u0000`), websocket.TextMessage},
		"half a pair":         {fmt.Sprintf(status, `\ud800`), websocket.TextMessage},
		"a status with an id": {strings.Replace(fmt.Sprintf(status, "u"), `"dst"`, `"id":5,"dst"`, 1), websocket.TextMessage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t, Config{})
			w := b.device()
			if err := w.conn.WriteMessage(c.kind, []byte(c.frame)); err != nil {
				t.Fatal(err)
			}
			b.eventually("the relay", func() bool { return b.relay(plug) == "on" })
			w.send(`{"id":7,"src":"` + string(plug) + `","method":"NotifyStatus","params":{"switch:0":{"output":false}}}`)
			b.eventually("the delta", func() bool { return b.relay(plug) == "off" })
			b.eventually("a text that can be stored", func() bool {
				source := *b.state.Devices[plug].Source
				return source == "button" || source == "b\uFFFDtton"
			})
		})
	}
}

// An operator sees which device was refused, and why: in the log, once a minute,
// in the counts, and in the last refusals of the connection.
func TestOperatorsSeeRefusals(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{MaxMessages: 5})
	for range 3 {
		w := b.device()
		w.send(`{"src":"` + string(plug) + `","method":"NotifyFullStatus","params":{`)
		w.mustClose(1008)
	}
	of := func() []domain.DeviceRefusal { return b.refusals.LastRefusals("clinica-sol", acc) }
	b.eventually("the bad frames", func() bool { return len(of()) == 3 }) // noted after the close
	flood := b.device()
	flood.full("plug-2", true)
	for range 5 {
		flood.delta("plug-2", `{}`)
	}
	flood.mustClose(1008)
	if _, status, _ := b.dial("/shelly/" + string(acc) + "/wrong"); status != 401 {
		t.Fatal(status)
	}
	b.eventually("the refusals", func() bool { return len(of()) == 4 })
	last := of()
	if last[0].Reason != "flood" || last[3].Reason != "bad-frame" || last[3].DeviceID != plug || !strings.Contains(last[3].Detail, "JSON") ||
		last[3].Remote == "" || time.Since(last[3].At) > time.Hour {
		t.Errorf("%+v", last)
	}
	if n := b.refusals.Counts(); n["bad-frame"] != 3 || n["flood"] != 1 || n["unknown-key"] != 1 {
		t.Errorf("%v", n)
	}
	log := b.logged.String()
	for _, want := range []string{"level=WARN", "device=" + string(plug), "reason=bad-frame", "reason=flood", "reason=unknown-key"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s: %s", want, log)
		}
	}
	if n := strings.Count(log, "reason=bad-frame"); n != 1 {
		t.Errorf("the same refusal is logged %d times", n)
	}
	if of := b.refusals.LastRefusals("centro-luna", acc); len(of) != 0 {
		t.Errorf("another system sees %v", of)
	}
}

// A dimmer has a row with its attributes, and is not switched.
func TestDeviceWithoutARelay(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	w := b.device()
	w.send(`{"src":"dimmer","dst":"ws","method":"NotifyFullStatus","params":{"light:0":{"id":0,"output":true,"brightness":40,"apower":9}}}`)
	b.eventually("the dimmer", func() bool {
		d := b.state.Devices["dimmer"]
		return d != nil && *d.Online && d.RelayOn == nil && *d.PowerW == 9 && b.beaten("open dimmer 2m0s") &&
			string(d.Attributes) == `{"light:0":{"apower":9,"brightness":40,"output":true}}`
	})
	w.delta("dimmer", `{"light:0":{"output":false}}`)
	b.eventually("it to be off", func() bool { return strings.Contains(string(b.state.Devices["dimmer"].Attributes), `"output":false`) })
	o := b.orderOf("dimmer", true, time.Now().Add(time.Minute))
	o.ends(t, domain.OutcomeFailed)
}

// The holder takes a correction over, and its next update has it in.
func TestHolderHearsOfACorrection(t *testing.T) {
	t.Parallel()
	b := newBundle(t, Config{})
	w := b.admitted()
	offset := 95.0
	b.server.Correct(domain.DeviceRef{System: "clinica-sol", Device: plug}, []*domain.Device{{DeviceID: plug, EnergyOffsetWh: &offset}})
	on := true
	b.eventually("the correction to be in an update", func() bool {
		on = !on
		w.delta(plug, fmt.Sprintf(`{"switch:0":{"output":%t}}`, on))
		text := b.texts()
		return strings.Contains(text, `"energyWh":100,`) && strings.Contains(text, `"energyOffsetWh":95`)
	})
}
