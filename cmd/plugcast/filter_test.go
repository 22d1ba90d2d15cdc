package main

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// History of a real server takes filters under both names, and a bound that is zero
// for a bound; and one request under an Idempotency-Key is the same in any layout.
func TestFiltersBoundsAndKeysOverHTTP(t *testing.T) {
	t.Parallel()
	n := newDeployment(t).start(t, "")
	publish(t, n.base, testSecret, "s", 4) // of plug-a and plug-b in turn
	service, staff := signed(t, testSecret, domain.RoleService, "s"), testToken(t, domain.RoleStaff)
	const item = `{"systemId":"s","deviceId":"plug-c","relayOn":true}`
	var first, again struct {
		Positions map[string]domain.PositionRange `json:"positions"`
	}
	key := []string{"Idempotency-Key", "k"}
	updates := n.base + "/api/v1/device-updates"
	mustCall(t, 200, "POST", updates, service, "["+item+"]", &first, key...)
	for _, layout := range []string{" [\n\t" + item + " ]\r\n", item + "\n", `{ "systemId" : "s","deviceId":"plug-c" ,"relayOn":true }`} {
		if mustCall(t, 200, "POST", updates, service, layout, &again, key...); again.Positions["s"] != first.Positions["s"] {
			t.Errorf("%q: %v, after %v", layout, again, first)
		}
	}
	mustCall(t, 422, "POST", updates, service, "["+item+","+item+"]", nil, key...)
	last := first.Positions["s"].Last.String()
	for query, want := range map[string]int{
		"": 5, "type=device-update": 5, "types=device-update,of-tomorrow": 5, "types=of-tomorrow": 0,
		"devices=plug-a,plug-c": 3, "deviceId=plug-a&devices=plug-b": 4, "type=of-tomorrow&types=device-update&devices=plug-c": 1,
		"before=0-0": 0, "before=0": 0, "to=0001-01-01T00:00:00Z": 0, "to=1970-01-01T00:00:00Z": 0, "after=0-0": 5, "before=" + last: 4,
		"order=desc&before=0-0&devices=plug-a,plug-b": 0, "from=0001-01-01T00:00:00Z": 5,
	} {
		var page struct{ Events []domain.Event }
		mustCall(t, 200, "GET", fmt.Sprintf("%s/api/v1/systems/s/events?after-position=%s&%s", n.base, last, query), staff, nil, &page)
		if len(page.Events) != want {
			t.Errorf("%s: %d events, want %d", query, len(page.Events), want)
		}
	}
	for _, query := range []string{"type=", "types=a,,b", "devices=,", "type=" + url.QueryEscape("a\x1b[2J")} {
		mustCall(t, 400, "GET", n.base+"/api/v1/systems/s/events?"+query, staff, nil, nil)
		mustCall(t, 400, "GET", n.base+"/api/v1/systems/s/events/stream?"+query, staff, nil, nil)
	}
}
