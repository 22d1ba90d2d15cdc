package ws

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// TestDataIsReadToTheLetter sends data with one mistake each. The answer names the
// mistake in the words of the protocol, and the server changes nothing.
func TestDataIsReadToTheLetter(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	c := ts.connect("viewer")
	for _, bad := range []struct{ event, data, detail string }{
		{"join-system", `{"systemId":"clinica-sol","aftr":"0-0"}`,
			`join-system has no member "aftr"; there are systemId, after, snapshot, types, devices, conflate`},
		{"join-system", `{"systemId":"clinica-sol","After":"0-0"}`, `no member "After"`},
		{"join-system", `{"systemId":"clinica-sol","type":[],"device":[]}`, `no member "device"`},
		{"join-system", `{"systemId":"clinica-sol","":1}`, `no member ""`},
		{"join-system", `{"systemId":"clinica-sol","` + strings.Repeat("x", 5000) + `":1}`, `no member "xxx`},
		{"leave-system", `{"systemId":"clinica-sol","after":"0-0"}`, `leave-system has no member "after"; there is systemId`},
		{"authenticate", `{"token":"luna","Token":"viewer"}`, `authenticate has no member "Token"; there is token`},

		{"join-system", `"clinica-sol"`, "the data of join-system must be an object"},
		{"join-system", `[]`, "the data of join-system must be an object"},
		{"join-system", `{"systemId":7}`, "systemId must be a string"},
		{"join-system", `{"systemId":"clinica-sol","after":12}`, "after must be a string"},
		{"join-system", `{"systemId":"clinica-sol","snapshot":"yes"}`, "snapshot must be true or false"},
		{"join-system", `{"systemId":"clinica-sol","types":7}`, "types must be an array of strings"},
		{"join-system", `{"systemId":"clinica-sol","devices":["plug-1",2]}`, "devices must be an array of strings"},
		{"join-system", `{"systemId":"clinica-sol","conflate":0}`, "conflate must be true or false"},
		{"join-system", `{"systemId":"clinica-sol","after":"0-0","after":"5-0"}`, "after appears twice"},
		{"join-system", `{"systemId":"clinica-sol","type":["a"],"type":["b"]}`, "type appears twice"},
		{"join-system", `{"systemId":"clinica-sol","\u0074ype":"a","type":"b"}`, "type appears twice"},
		{"authenticate", `{"token":"luna","token":"viewer"}`, "token appears twice"},
		{"leave-system", `true`, "the data of leave-system must be an object"},
		{"leave-system", `{"systemId":{}}`, "systemId must be a string"},
		{"authenticate", `"luna"`, "the data of authenticate must be an object"},
		{"authenticate", `{"token":["luna"]}`, "token must be a string"},
	} {
		c.send(`{"event":"` + bad.event + `","id":1,"data":` + bad.data + `}`)
		f := c.next()
		var e struct{ Detail string }
		f.into(t, &e)
		if f.code(t) != CodeInvalidFrame || !strings.Contains(e.Detail, bad.detail) || len(e.Detail) > 300 || string(f.ID) != "1" {
			t.Errorf("%s %.80s: answer %s", bad.event, bad.data, f.raw)
		}
		for _, ours := range []string{"json:", "Go ", "struct", "Request"} {
			if strings.Contains(e.Detail, ours) {
				t.Errorf("%s %.80s: the detail %q speaks of this program", bad.event, bad.data, e.Detail)
			}
		}
	}
	if n := ts.hub.Stats(1).Subscriptions; n != 0 {
		t.Errorf("%d rooms are joined", n)
	}
	c.join(sol) // the token "luna" would not allow this join
}

func TestDataInFull(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	ts.source.Append(sol, clienttest.Updates(2)...)
	c, at := ts.join("viewer", sol, `"after":null`, `"snapshot":true`, `"types":["device-update"]`, `"devices":["plug-1"]`, `"conflate":true`)
	if at.Seq != 2 {
		t.Errorf("joined %+v", at)
	}
	c.expect(eventSnapshot)
	c.join(sol, `"after":"0-0"`, `"snapshot":false`, `"types":null`, `"devices":[]`, `"conflate":false`)
	c.events(2)
}

// Filters accept the names that the other faces use, and each form that JSON has for a
// list.
func TestNamesOfFilters(t *testing.T) {
	t.Parallel()
	ts := serve(t, Config{})
	ts.source.Append(sol, clienttest.Updates(2)...)
	ts.source.Append(sol, domain.RelaySwitchRequested{DeviceID: "plug-9", CommandID: "c"})
	all := ts.source.Events(sol)
	for members, want := range map[string]int{
		`"type":"device-update"`:                                                 2,
		`"types":"of-tomorrow, device-update"`:                                   2,
		`"types":["relay-switch-requested","of-tomorrow,device-update"]`:         3,
		`"type":["relay-switch-requested"],"types":["device-update"]`:            3,
		`"types":["device-update"],"deviceId":"` + string(all[0].Device()) + `"`: 1,
		`"devices":"plug-9,` + string(all[0].Device()) + `"`:                     2,
		`"type":[],"devices":null`:                                               3,
	} {
		c, _ := ts.join("viewer", sol, `"after":"0-0"`, members)
		c.events(want)
		c.stillOpen()
	}
}

func BenchmarkDecodeJoin(b *testing.B) {
	r := request{Event: eventJoinSystem, Data: json.RawMessage(
		`{"systemId":"clinica-sol","after":"1795461046705-0","snapshot":true,"types":["device-update"]}`)}
	b.ReportAllocs()
	for b.Loop() {
		var j rooms.JoinRequest
		if err := r.decode(joinMembers(&j)...); err != nil {
			b.Fatal(err)
		}
	}
}
