package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/plugcast/plugcast/cmd/plugcast/metrics"
	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// A system with a thousand events that no process can react to does not hold up
// the commands of a neighbour in the same partition. Operators see what failed.
func TestFailingReactionsDelayTheirSystemOnly(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	log, err := streams.Open(t.Context(), streams.Config{URL: d.redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	const quiet = "clinica-sol"
	var failing domain.SystemID
	for i := 0; failing == "" || log.Partition(failing) != log.Partition(quiet); i++ {
		failing = domain.SystemID(fmt.Sprint("failing-", i))
	}
	bad := make([]domain.Event, 1000)
	for i := range bad {
		if bad[i], err = domain.NewEvent(failing, domain.DisconnectRequested{CommandID: "c"}, domain.Cause{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
		bad[i].Data = json.RawMessage(`{"commandId":1}`)
	}
	if _, err := log.Append(t.Context(), bad, domain.AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	client := converse(t, n.base, testToken(t, domain.RoleViewer, quiet))
	client.join(quiet)
	var answer dropAnswer
	mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/disconnects?wait=5s", testToken(t, domain.RoleAdmin, quiet),
		`{"systemId":"`+quiet+`"}`, &answer)
	if answer.Outcome != domain.OutcomeCompleted || len(answer.Nodes) != 1 || answer.Nodes[0].BrowserSockets != 1 {
		t.Errorf("the neighbour's command ended as %+v", answer)
	}
	staff := testToken(t, domain.RoleStaff)
	testpeer.Eventually(t, "the dead letters", func() bool {
		var list struct{ DeadLetters []domain.DeadLetter }
		mustCall(t, http.StatusOK, "GET", n.base+"/api/v1/dead-letters?limit=200", staff, "", &list)
		for _, one := range list.DeadLetters {
			if one.SystemID != failing || one.Type != domain.TypeDisconnectRequested || one.EventID == "" || one.Error == "" {
				t.Fatalf("a dead letter is %+v", one)
			}
		}
		return len(list.DeadLetters) == 100
	})
	dashboard := converse(t, n.base, staff)
	dashboard.say("join-admin-dashboard", nil)
	awaitMetrics(t, dashboard, "all dead letters to be counted", func(f *metrics.Platform) bool { return f.DeadLetters == uint64(len(bad)) })
}
