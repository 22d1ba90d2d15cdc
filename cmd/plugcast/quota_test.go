package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/simulator"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

// A system has so many devices and no more, whichever way they come and at whichever
// process. What is known goes on, and so do other systems.
func TestASystemHasSoManyDevices(t *testing.T) {
	t.Parallel()
	const sol, luna domain.SystemID = "clinica-sol", "centro-luna"
	cloud := shellycloud.New(shellycloud.Config{})
	server := httptest.NewServer(cloud)
	t.Cleanup(server.Close)
	t.Cleanup(cloud.Close)
	account := cloud.AddAccount("6550", server.URL)
	account.AddDevice("8cbfea9a1b2c", 1)

	d := newDeployment(t)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	d.env = append(d.env,
		"PLUGCAST_SECRET_KEY="+base64.StdEncoding.EncodeToString(key), "PLUGCAST_CLOUD_HOSTS="+strings.TrimPrefix(server.URL, "http://"))
	here, there := d.start(t, "", "--max-system-devices", "4"), d.start(t, "", "--max-system-devices", "4", "--roles", "gateway")
	db := d.database(t)
	service := testToken(t, domain.RoleService)
	publish := func(n *node, want int, system domain.SystemID, plugs ...int) map[string]any {
		t.Helper()
		var batch []map[string]any
		for _, plug := range plugs {
			batch = append(batch, map[string]any{"systemId": system, "deviceId": fmt.Sprint("plug-", plug), "online": true})
		}
		var answer map[string]any
		mustCall(t, want, "POST", n.base+"/api/v1/device-updates", service, batch, &answer)
		return answer
	}
	publish(here, http.StatusOK, sol, 1, 2)
	publish(there, http.StatusOK, sol, 1, 3)
	why := publish(there, http.StatusConflict, sol, 3, 4, 5, 6)
	if why["code"] != "too-many-devices" || why["index"] != 2.0 || why["deviceId"] != "plug-5" {
		t.Errorf("a batch with two devices too many is refused with %v", why)
	}
	publish(there, http.StatusOK, sol, 4, 1)
	publish(here, http.StatusOK, sol, 1, 2, 3, 4)
	for _, n := range []*node{here, there} {
		if why := publish(n, http.StatusConflict, sol, 1, 5); why["index"] != 1.0 {
			t.Errorf("a batch with one device too many is refused with %v", why)
		}
		publish(n, http.StatusOK, sol, 1, 2, 3, 4)
		publish(n, http.StatusOK, luna, 1, 2, 3, 4)
	}

	bridged := func(at int, device string) map[string]any {
		return map[string]any{
			"event": domain.TypeDeviceUpdate, "position": fmt.Sprint(at, "-0"), "id": fmt.Sprint("bridged-", at), "systemId": sol,
			"time": "2026-11-23T18:00:00Z", "actor": "x", "version": 1, "data": map[string]any{"deviceId": device, "online": true},
		}
	}
	var taken struct{ Accepted, Refused int }
	mustCall(t, http.StatusOK, "POST", here.base+"/api/v1/systems/clinica-sol/bridge/events?source=far&after=0-0&through=3-0",
		testToken(t, domain.RoleBridge, sol), []any{bridged(1, "far-1"), bridged(2, "plug-1"), bridged(3, "far-2")}, &taken)
	if taken.Accepted != 3 || taken.Refused != 2 {
		t.Errorf("of three bridged events of which two are of new devices: %+v", taken)
	}
	kept := map[string]domain.EventType{}
	testpeer.Eventually(t, "the bridged events", func() bool {
		for _, e := range history(t, here.base, sol) {
			kept[e.ID] = e.Type
		}
		return kept["bridged-3"] != ""
	})
	for id, want := range map[string]domain.EventType{
		"bridged-1": domain.TypeUndecodable, "bridged-2": domain.TypeDeviceUpdate, "bridged-3": domain.TypeUndecodable,
	} {
		if kept[id] != want {
			t.Errorf("%s is kept as %s, want %s", id, kept[id], want)
		}
	}

	admin := testToken(t, domain.RoleAdmin, sol)
	dialledIn(t, dialIn(createConnection(t, here, sol, "acc1"), there), simulator.FleetConfig{Devices: 1})
	mustCall(t, http.StatusCreated, "POST", here.base+"/api/v1/systems/clinica-sol/connections", admin,
		map[string]any{"connectionId": "acc2", "kind": domain.ConnectionShellyCloud, "authCode": account.AuthCode()}, nil)
	for connection, n := range map[string]*node{"acc1": there, "acc2": here} {
		var shown struct{ LastRefusals []domain.DeviceRefusal }
		testpeer.Eventually(t, "the refusal of a plug of "+connection, func() bool {
			mustCall(t, http.StatusOK, "GET", n.base+"/api/v1/systems/clinica-sol/connections/"+connection, admin, nil, &shown)
			return len(shown.LastRefusals) > 0 && shown.LastRefusals[0].Reason == "too-many-devices"
		})
		total := 0.0
		for _, m := range scrape(t, n)["plugcast_device_refusals_total"].GetMetric() {
			if m.GetLabel()[0].GetValue() == "too-many-devices" {
				total += m.GetCounter().GetValue()
			}
		}
		if total == 0 {
			t.Errorf("the refusal of a plug of %s is not counted", connection)
		}
	}
	if n := db.count("projection.devices WHERE system_id = $1", sol); n != 4 {
		known, _ := json.Marshal(devices(t, here.base, sol))
		t.Errorf("%d devices are known: %s", n, known)
	}
}
