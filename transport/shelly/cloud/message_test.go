package cloud

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../testdata/samples", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// shown returns a message as a line of text.
func shown(m message, err error) string {
	if err != nil {
		return "refused: " + err.Error()
	}
	switch m := m.(type) {
	case notice:
		id := m.device.resolve(nil)
		if online, ok := m.online.Get(); ok {
			return fmt.Sprintf("online of %s %v", id, online)
		}
		if m.status == nil {
			return fmt.Sprintf("settings of %s, name %q", id, m.name)
		}
		return fmt.Sprintf("status of %s %s, %d members, output %v", id, m.gen, len(m.status), outputOf(m.status))
	case response:
		return fmt.Sprintf("response to %s: answered %v, ok %v, %q", m.transactionID, m.answered, m.ok, m.err)
	case socketError:
		return "failure: " + m.text
	case ignored:
		return "ignored: " + m.event
	}
	return fmt.Sprintf("%T", m)
}

func outputOf(doc map[string]any) any {
	if relays, ok := doc["relays"].([]any); ok {
		return relays[0].(map[string]any)["ison"]
	}
	first, _ := doc["switch:0"].(map[string]any)
	return first["output"]
}

// TestSamples checks the result of each recorded message of the cloud, or has the reason
// for none.
func TestSamples(t *testing.T) {
	t.Parallel()
	frames := map[string]string{
		"cloud-integrator-online.json":                   "online of 8cbfea9a1b2c false",
		"cloud-integrator-settings.json":                 `settings of 8cbfea9a1b2c, name "Heater"`,
		"cloud-integrator-statusonchange.json":           "status of 8cbfea9a1b2c , 1 members, output true",
		"cloud-integrator-actionresponse-wronghost.json": "ignored: Integrator:ActionResponse",
		"cloud-integrator-actionrequest-verify.json":     "ignored: Integrator:ActionRequest",
		"cloud-rte-commandresponse-error.json":           `response to 11: answered true, ok false, "WRONG_ID"`,
		"cloud-rte-commandresponse-ok.json":              `response to 10: answered true, ok true, ""`,
		"cloud-rte-jrpcresponse-error.json": `response to hub_7f3a_1235: answered true, ok false, ` +
			`"-105: Argument 'id', value 3 not found!"`,
		"cloud-rte-jrpcresponse-ok.json":                    `response to hub_7f3a_1234: answered true, ok true, ""`,
		"cloud-rte-online-down.json":                        "online of 8cbfea9a1b2c false",
		"cloud-rte-online-up.json":                          "online of 8cbfea9a1b2c true",
		"cloud-rte-statusonchange-gen1-plugs.json":          "status of b923fa G1, 25 members, output true",
		"cloud-rte-statusonchange-gen2-full.json":           "status of 8cbfea9a1b2c G2, 13 members, output true",
		"cloud-rte-statusonchange-gen2-partial-output.json": "status of 8cbfea9a1b2c G2, 1 members, output false",
		"cloud-rte-statusonchange-gen2-partial-power.json":  "status of 8cbfea9a1b2c G2, 3 members, output <nil>",
		"cloud-rte-statusonchange-gen2-sys-only.json":       "status of 8cbfea9a1b2c G2, 3 members, output <nil>",
		"cloud-rte-unknown-event.json":                      "ignored: Shelly:SomethingNew",
		"cloud-integrator-consent-callback.json":            "refused: cloud: decode frame: it has no event",
	}
	elsewhere := map[string]string{
		"cloud-http-401.json":                      "TestFailures",
		"cloud-http-all-status.json":               "TestAllStatus",
		"cloud-oauth-access-token-claims.json":     "TestClaims",
		"cloud-oauth-code-claims.json":             "TestClaims",
		"cloud-oauth-token-response.json":          "TestClaims",
		"cloud-rte-commandrequest-relay.json":      "TestRequests",
		"cloud-rte-jrpcrequest-switchset.json":     "TestRequests",
		"cloud-v2-error-device-offline.json":       "TestFailures",
		"cloud-v2-get-request.json":                "not asked: all_status has it all",
		"cloud-v2-get-response.json":               "not asked: all_status has it all",
		"cloud-v2-set-groups-response-failed.json": "not asked: commands go over the socket",
		"cloud-v2-set-switch-request.json":         "not asked: commands go over the socket",
	}
	files, err := filepath.Glob("../testdata/samples/cloud-*.json")
	if err != nil || len(files) != len(frames)+len(elsewhere) {
		t.Errorf("there are %d samples (%v), and %d are looked at", len(files), err, len(frames)+len(elsewhere))
	}
	for name, want := range frames {
		if got := shown(decode(sample(t, name))); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	for frame, want := range map[string]string{
		`{"event":"Shelly:StatusOnChange","deviceId":12133370,"status":[]}`:  "status of b923fa , 0 members, output <nil>",
		`{"event":"Shelly:Online","device":{"id":"12133370"},"online":true}`: "online of b923fa true",
		`{"event":"Shelly:CommandResponse","trid":"12",` +
			`"data":{"isok":false,"errors":{"a":"b"}}}`: `response to 12: answered true, ok false, "a: b"`,
		`{"event":"Shelly:CommandResponse","trid":12}`:                           `response to 12: answered false, ok false, ""`,
		`{"event":"Shelly:JrpcResponse","trid":"12","response":{"result":null}}`: `response to 12: answered true, ok true, ""`,
		`{"event":"Shelly:JrpcResponse","trid":"12",` +
			`"response":{"result":{},"error":"x"}}`: `response to 12: answered false, ok false, ""`,
		`{"event":"Shelly:JrpcResponse","trid":"12",` +
			`"response":{"error":"Server Away"}}`: `response to 12: answered true, ok false, "Server Away"`,
		`{"event":"Error","message":"UNAUTHORIZED"}`:                                                       "failure: UNAUTHORIZED",
		`{"event":"Shelly:Settings","deviceId":"12133370","settings":{"sys":{"device":{"name":"Laser"}}}}`: `settings of b923fa, name "Laser"`,
	} {
		if got := shown(decode([]byte(frame))); got != want {
			t.Errorf("%s is %q, not %q", frame, got, want)
		}
	}
	for _, frame := range []string{
		``, `[]`, `"x"`, `{}`, `{"event":7}`, `{"event":"Shelly:StatusOnChange","status":{}}`,
		`{"event":"Shelly:StatusOnChange","deviceId":"12133370"}`, `{"event":"Shelly:StatusOnChange","deviceId":"12133370","status":[1]}`,
		`{"event":"Shelly:StatusOnChange","deviceId":"xyz","status":{}}`, `{"event":"Shelly:Online","deviceId":"12133370","online":2}`,
		`{"event":"Shelly:Online","deviceId":"12133370"}`, `{"event":"Shelly:CommandResponse","data":{"isok":true}}`,
		`{"event":"Shelly:CommandResponse","trid":1.5,"data":{"isok":true}}`,
		`{"event":"Shelly:StatusOnChange","deviceId":"12133370","status":{"switch:0":{"apower":NaN}}}`,
		`{"event":"x","a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
		`{"event":"x","a":[` + strings.Repeat("1,", 100_000) + `1]}`,
		`{"event":"x","a":"` + strings.Repeat("x", 300<<10) + `"}`,
	} {
		if m, err := decode([]byte(frame)); err == nil {
			t.Errorf("%.80s is taken for %s", frame, shown(m, nil))
		}
	}
}

// FuzzMessage finds input that makes a decoder panic, or that gives an invalid device id.
func FuzzMessage(f *testing.F) {
	files, _ := filepath.Glob("../testdata/samples/cloud-*.json")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decode(raw)
		if (m == nil) == (err == nil) {
			t.Fatalf("%v, %v", m, err)
		}
		check := func(w wireID) {
			if id, err := domain.ParseDeviceID(string(w.resolve(nil))); err != nil || baseOf(id) != id {
				t.Fatalf("id %q: %v", id, err)
			}
		}
		if n, ok := m.(notice); ok {
			check(n.device)
		}
		if all, err := decodeAllStatus(raw); err == nil {
			for _, d := range all.devices {
				check(d.id)
			}
		}
		if failure := readFailure(400, raw); failure == nil || len(failure.text) > 2*maxWords {
			t.Fatalf("a failure is %v", failure)
		}
		_, _ = readClaims(string(raw))
		_, _ = serverAt(string(raw), nil)
	})
}

func TestRequests(t *testing.T) {
	t.Parallel()
	for name, got := range map[string][]byte{
		"cloud-rte-commandrequest-relay.json":  relayRequest(10, plug, 0, true),
		"cloud-rte-jrpcrequest-switchset.json": switchSetRequest(7, plug, 0, true, 0),
	} {
		var is, want map[string]any
		if json.Unmarshal(got, &is) != nil || json.Unmarshal(sample(t, name), &want) != nil {
			t.Fatal(name)
		}
		if strings.Contains(name, "jrpc") {
			want["trid"] = "7"
		}
		if diff := cmp.Diff(want, is); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	got := string(switchSetRequest(7, old, 2, false, 1500*time.Millisecond))
	if !strings.Contains(got, `"params":{"id":2,"on":false,"toggle_after":1.5}`) {
		t.Error(got)
	}
}

func TestAllStatus(t *testing.T) {
	t.Parallel()
	all, err := decodeAllStatus(sample(t, "cloud-http-all-status.json"))
	if err != nil || len(all.devices) != 3 || all.refused != 0 {
		t.Fatalf("%d devices, %d refused, %v", len(all.devices), all.refused, err)
	}
	got := map[domain.DeviceID]string{}
	for _, d := range all.devices {
		online, known := d.online.Get()
		got[d.id.resolve(nil)] = fmt.Sprint(d.gen, online, known, d.status["_dev_info"])
	}
	want := map[domain.DeviceID]string{
		"8cbfea9a1b2c": "G2true true <nil>", "5432045b561c": "G2true true <nil>", "b923fa": "G1false true <nil>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for body, devices := range map[string]int{
		`{"isok":true,"data":{"devices_status":[]}}`:                                                         0,
		`{"isok":true,"data":{"devices_status":{}}}`:                                                         0,
		`{"isok":true,"data":{"devices_status":{"b923fa":{"relays":[]}}}}`:                                   1, // without _dev_info
		`{"isok":true,"data":{"devices_status":{"0":{"id":"b923fa"}}}}`:                                      1,
		`{"isok":true,"data":{"devices_status":{"0":{"_dev_info":{"id":485519999340,"online":1}},"x?":{}}}}`: 1,
	} {
		if all, err := decodeAllStatus([]byte(body)); err != nil || len(all.devices) != devices {
			t.Errorf("%s: %d devices, %v", body, len(all.devices), err)
		}
	}
	for _, body := range []string{``, `[]`, `{}`, `{"isok":true}`, `{"isok":true,"data":{}}`, `{"isok":true,"data":{"devices_status":[1]}}`,
		`{"isok":false,"data":{"devices_status":{}}}`, `{"isok":true,"data":{"devices_status":7}}`} {
		if _, err := decodeAllStatus([]byte(body)); err == nil {
			t.Errorf("%s is taken for the states of an account", body)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status  int
		body    string
		text    string // "-" for none
		refuses bool
	}{
		{200, string(sample(t, "cloud-http-401.json")), "invalid_token: Your token is invalid or expired!", true},
		{401, string(sample(t, "cloud-http-401.json")), "invalid_token: Your token is invalid or expired!", true},
		{400, string(sample(t, "cloud-v2-error-device-offline.json")), "DEVICE_OFFLINE: The device is offline", false},
		{200, `{"isok":false,"errors":["busy","later"]}`, "busy; later", false},
		{200, `{"isok":false,"errors":"busy"}`, "busy", false},
		{200, `{"isok":false}`, "", false},
		{200, `{"isok":true}`, "-", false},
		{200, ``, "-", false},
		{502, `<html>`, "", false},
		{403, ``, "", true},
	} {
		failure := readFailure(test.status, []byte(test.body))
		switch {
		case (failure == nil) != (test.text == "-"):
			t.Errorf("%d %s: %v", test.status, test.body, failure)
		case failure != nil && (failure.text != test.text || failure.refuses() != test.refuses):
			t.Errorf("%d %s: %q, refuses %v", test.status, test.body, failure.text, failure.refuses())
		}
	}
}
