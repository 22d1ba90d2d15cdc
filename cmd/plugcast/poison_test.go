package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/cmd/plugcast/metrics"
	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// readyAnswer is what /readyz says.
type readyAnswer struct {
	Status   string
	Degraded []struct {
		Check, Detail, Since string
		Count                int
	}
}

// degraded asks /readyz at both addresses of a node, and returns what it says of a check.
func (n *node) degraded(t *testing.T, check string) (detail string) {
	t.Helper()
	for _, base := range []string{n.base, n.admin} {
		var answer readyAnswer
		mustCall(t, http.StatusOK, "GET", base+"/readyz", "", nil, &answer)
		found := ""
		for _, d := range answer.Degraded {
			if d.Check == check && d.Count > 0 && d.Since != "" {
				found = d.Detail
			}
		}
		if found == "" {
			return ""
		}
		detail = found
	}
	return detail
}

// An entry that cannot be projected costs one place in its own system's history. What
// lies in the database is said, and over when it is mended.
func TestPoisonFromOutside(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	n := d.start(t, "")
	const system = domain.SystemID("poisoned")
	log, err := streams.Open(t.Context(), streams.Config{URL: d.redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	neighbour := domain.SystemID("neighbour-0")
	for i := 0; log.Partition(neighbour) != log.Partition(system); i++ {
		neighbour = domain.SystemID(fmt.Sprint("neighbour-", i))
	}
	conn, err := pgx.Connect(t.Context(), d.postgres)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	exec := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	// A poison that nobody foresaw: Postgres refuses it, and not what replaces it.
	refuse := func(code string) {
		exec(`CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.type <> 'undecodable' AND NEW.data LIKE '%poison%' THEN RAISE EXCEPTION 'refused' USING ERRCODE = '` + code + `'; END IF;
			RETURN NEW; END $$`)
	}
	refuse("22P02")
	exec("CREATE TRIGGER refuse BEFORE INSERT ON history FOR EACH ROW EXECUTE FUNCTION refuse()")

	service, staff := testToken(t, domain.RoleService), testToken(t, domain.RoleStaff)
	publish := func(to domain.SystemID, name string) {
		t.Helper()
		body := fmt.Sprintf(`[{"systemId":%q,"deviceId":"plug","name":%q}]`, to, name)
		mustCall(t, http.StatusOK, "POST", n.base+"/api/v1/device-updates", service, body, nil)
	}
	raw := func(fields ...any) {
		t.Helper()
		all := append([]any{"XADD", log.Slot(log.Partition(system)) + "events", "*"}, fields...)
		if err := log.Client().Do(t.Context(), all...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		publish(neighbour, fmt.Sprint("good ", i))
		publish(system, fmt.Sprint("poison ", i))
		raw("id", fmt.Sprint("raw-", i), "type", "device-update", "version", "1", "systemId", string(system), "time", "2026-11-29T03:00:00Z",
			"actor", "", "data", `{"deviceId":"plug","name":"`+"\x00"+`"}`)
		raw("no", "system")
	}
	testpeer.Eventually(t, "history to have everything", func() bool {
		return len(history(t, n.base, neighbour)) == 5 && len(history(t, n.base, system)) == 10
	})
	for i, e := range history(t, n.base, system) {
		if e.Seq != uint64(i+1) || e.Type != domain.TypeUndecodable {
			t.Errorf("event %d is %s with seq %d", i, e.Type, e.Seq)
		}
	}
	d.verify(t, system)
	d.verify(t, neighbour)

	if detail := n.degraded(t, "quarantine"); !strings.HasPrefix(detail, "15 entries") {
		testpeer.Eventually(t, "/readyz to tell of the quarantine", func() bool {
			return strings.HasPrefix(n.degraded(t, "quarantine"), "15 entries")
		})
	}
	var page struct {
		Entries []domain.Quarantined
		Next    string
	}
	listed := 0
	for next := ""; ; next = page.Next {
		page.Next, page.Entries = "", nil
		mustCall(t, http.StatusOK, "GET", n.base+"/api/v1/quarantine?limit=4&before="+next, staff, nil, &page)
		if listed += len(page.Entries); page.Next == "" {
			break
		}
	}
	if listed != 15 {
		t.Errorf("%d entries are listed", listed)
	}
	mustCall(t, http.StatusOK, "GET", n.base+"/api/v1/quarantine?systemId="+string(system), staff, nil, &page)
	if len(page.Entries) != 10 {
		t.Errorf("%d entries of the system are listed", len(page.Entries))
	}
	testpeer.Eventually(t, "the metrics", func() bool {
		total, _ := sum(scrape(t, n)["plugcast_quarantined_entries"])
		split, _ := sum(scrape(t, n)["plugcast_partition_quarantined_entries"])
		return total == 15 && split == 15
	})
	dashboard := converse(t, n.base, staff)
	dashboard.say("join-admin-dashboard", nil)
	awaitMetrics(t, dashboard, "the quarantine", func(f *metrics.Platform) bool {
		q := f.Projections.Quarantine
		return q != nil && q.Entries == 15 && len(q.Partitions) == 1 && q.Partitions[0].Partition == log.Partition(system)
	})
	before := d.readModels(t)
	d.command(t, "rebuild")
	if after := d.readModels(t); after != before {
		t.Errorf("before the rebuild\n%s\nand after it\n%s", before, after)
	}

	// A full disk is no fault of an event: nothing is taken out for it, and operators see it.
	refuse("53100")
	publish(system, "poison that waits")
	publish(neighbour, "good that waits")
	testpeer.Eventually(t, "/readyz to tell of the partition that is stuck", func() bool {
		return strings.Contains(n.degraded(t, "projection"), fmt.Sprintf("partition %d", log.Partition(system)))
	})
	awaitMetrics(t, dashboard, "the partition that is stuck", func(f *metrics.Platform) bool {
		return len(f.Projections.Failing) == 1 && f.Projections.Failing[0].Partition == log.Partition(system)
	})
	exec("DROP TRIGGER refuse ON history")
	testpeer.Eventually(t, "the partition to go on", func() bool {
		events := history(t, n.base, system)
		return len(events) == 11 && events[10].Type == domain.TypeDeviceUpdate && n.degraded(t, "projection") == ""
	})
}
