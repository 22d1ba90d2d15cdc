package projections_test

import (
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
)

// Pages also end at a number of bytes, and no way of reading history misses events by it.
func TestPagesOfHistoryEndAtBytes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const system, count = domain.SystemID("large-0"), 150
	log := newScript()
	for ms := range uint64(count) {
		const size = 60 << 10 // nearly as large as an event can be
		log.add(must(t, system, 1_700_000_000_000+ms, domain.DeviceUpdate{
			DeviceID: "d", PowerW: domain.Some(float64(ms)), Name: domain.Some(strings.Repeat("x", size)),
		}))
	}
	projectAll(t, b.store, log)
	check := func(page []domain.Event) {
		t.Helper()
		bytes := 0
		for _, e := range page {
			bytes += len(e.Data)
		}
		if len(page) > 1 && bytes > projections.PageBytes || len(page) > 70 {
			t.Errorf("a page has %d events of %d bytes", len(page), bytes)
		}
	}
	var after domain.Position
	seq := uint64(0)
	for {
		page, err := b.store.Page(t.Context(), system, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		check(page)
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			if seq++; e.Seq != seq {
				t.Fatalf("seq %d instead of %d", e.Seq, seq)
			}
			after = e.Position
		}
	}
	if seq != count {
		t.Errorf("%d events by pages", seq)
	}
	for _, descending := range []bool{false, true} {
		q := domain.EventQuery{Descending: descending, Filter: domain.EventFilter{Types: []domain.EventType{domain.TypeDeviceUpdate}}}
		total := 0
		for more := true; more; {
			var page []domain.Event
			var err error
			if page, more, err = b.store.Events(t.Context(), staff, system, q); err != nil || len(page) == 0 {
				t.Fatalf("%d events, %v", len(page), err)
			}
			check(page)
			total += len(page)
			end := page[len(page)-1].Position
			if q.After = &end; descending {
				q.Before, q.After = &end, nil
			}
		}
		if total != count {
			t.Errorf("descending %v: %d events", descending, total)
		}
	}
	checkChain(t, b.store, system, count)
	for _, q := range []domain.EventQuery{{}, {Limit: 30}, {Filter: domain.EventFilter{Devices: []domain.DeviceID{"d"}}}} {
		exported := 0
		if err := b.store.Export(t.Context(), staff, system, q, func(*domain.HashedEvent) error { exported++; return nil }); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 30, false: count}[q.Limit == 30]; exported != want {
			t.Errorf("%d events exported, want %d", exported, want)
		}
	}
	if st, err := b.store.StateAt(t.Context(), staff, system, domain.Position{Ms: 1_700_000_000_038}); err != nil ||
		*st.Devices["d"].PowerW != 38 {
		t.Errorf("%v", err)
	}
	if rebuilt, err := b.store.Rebuild(t.Context(), nil, nil); err != nil || rebuilt.Events != count {
		t.Errorf("%+v, %v", rebuilt, err)
	}
}
