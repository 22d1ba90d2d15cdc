package projections_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
)

func TestFindings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	if kept, err := b.store.LinkState(ctx, "old", "clinica1"); err != nil || kept != nil {
		t.Fatalf("before anything: %s, %v", kept, err)
	}
	for _, step := range []struct {
		was    uint64
		memory string
		done   bool
	}{
		{0, `{"pid": "a"}`, true}, {0, `{"pid": "b"}`, true},
		{0, `{"pid": "c", "revision": 1}`, true}, // another process takes over
		{0, `{"pid": "d"}`, false},               // and the previous process saves too late
		{1, `{"pid": "e", "revision": 1}`, true},
		{1, `{"pid": "a NUL \u0000 and half a pair \ud800", "revision": 1}`, true}, // JSON that jsonb refuses
	} {
		before, err := b.store.LinkState(ctx, "old", "clinica1")
		if err != nil {
			t.Fatal(err)
		}
		if done, err := b.store.SaveLinkState(ctx, "old", "clinica1", step.was, json.RawMessage(step.memory)); err != nil || done != step.done {
			t.Fatalf("%s was kept: %v, %v", step.memory, done, err)
		}
		want := step.memory
		if !step.done {
			want = string(before)
		}
		if kept, err := b.store.LinkState(ctx, "old", "clinica1"); err != nil || string(kept) != want {
			t.Fatalf("kept %s, %v", kept, err)
		}
	}
	start := time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)
	finding := func(n int) domain.Finding {
		return domain.Finding{
			System: "clinica1", Link: "old", Kind: domain.FindingOnlyHere, At: start.Add(time.Duration(n) * time.Second),
			Device: domain.DeviceID(fmt.Sprint("d", n)), Here: json.RawMessage(`{"a":1}`),
		}
	}
	var many []domain.Finding
	for n := range projections.MaxFindings + 2 {
		many = append(many, finding(n))
	}
	if err := b.store.AddFindings(ctx, "old", "clinica1", many, map[string]uint64{"same": 5, "only-here": 2}, 3); err != nil {
		t.Fatal(err)
	}
	if err := b.store.AddFindings(ctx, "old", "clinica1", nil, map[string]uint64{"same": 7}, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.store.AddFindings(ctx, "other", "clinica2", []domain.Finding{finding(1)}, nil, 0); err != nil {
		t.Fatal(err)
	}
	report, err := b.store.Findings(ctx, domain.FindingsFilter{System: "clinica1", Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Links) != 1 || report.Links[0].Dropped != 5 || report.Links[0].Counts["same"] != 12 ||
		report.Links[0].Counts["only-here"] != 2 {
		t.Errorf("links %+v", report.Links)
	}
	if len(report.Findings) != 2 || !report.More || report.Findings[0].Device != "d2" || string(report.Findings[0].Here) != `{"a":1}` {
		t.Errorf("findings %+v, more %v: the oldest two are gone", report.Findings, report.More)
	}
	next, err := b.store.Findings(ctx, domain.FindingsFilter{Link: "old", After: report.Findings[1].ID,
		Since: start.Add(10_000 * time.Second)})
	if err != nil || len(next.Findings) != 2 || next.More {
		t.Errorf("since: %+v, %v", next.Findings, err)
	}
	if all, err := b.store.Findings(ctx, domain.FindingsFilter{}); err != nil || len(all.Links) != 2 {
		t.Errorf("all: %+v, %v", all.Links, err)
	}
}

// A page of findings also ends at a number of bytes, and the next page continues from there. A
// large finding is a page of its own.
func TestPagesOfFindingsEndAtBytes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const count = 15
	sizes := func(n int) int {
		if n == count-1 {
			return projections.PageBytes
		}
		return 600 << 10
	}
	for n := range count {
		large := domain.Finding{
			System: "clinica1", Link: "old", Kind: domain.FindingRejected, At: time.Now(), Count: uint64(n),
			There: json.RawMessage(`"` + strings.Repeat("x", sizes(n)) + `"`),
		}
		if err := b.store.AddFindings(t.Context(), "old", "clinica1", []domain.Finding{large}, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	var filter domain.FindingsFilter
	total, pages := 0, 0
	for more := true; more; pages++ {
		report, err := b.store.Findings(t.Context(), filter)
		if err != nil || len(report.Findings) == 0 {
			t.Fatalf("%d findings, %v", len(report.Findings), err)
		}
		bytes := 0
		for _, f := range report.Findings {
			if f.Count != uint64(total) {
				t.Fatalf("finding %d instead of %d", f.Count, total)
			}
			total++
			bytes += len(f.There)
		}
		if len(report.Findings) > 1 && bytes > projections.PageBytes {
			t.Errorf("a page of %d findings has %d bytes", len(report.Findings), bytes)
		}
		more, filter.After = report.More, report.Findings[len(report.Findings)-1].ID
	}
	if total != count || pages != 4 {
		t.Errorf("%d findings on %d pages", total, pages)
	}
}

// Payloads of another server are stored as far as a database can: they must not prevent other
// findings from being stored.
func TestFindingOfSomethingStrange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	strange := domain.Finding{
		System: "clinica1", Link: "old", Kind: domain.FindingRejected, At: time.Now(), There: json.RawMessage("{\"a\":\"\\u0000\xff\"}"),
	}
	if err := b.store.AddFindings(t.Context(), "old", "clinica1", []domain.Finding{strange}, nil, 0); err != nil {
		t.Fatal(err)
	}
	report, err := b.store.Findings(t.Context(), domain.FindingsFilter{})
	if err != nil || len(report.Findings) != 1 || string(report.Findings[0].There) != "{\"a\":\"\\ufffd\uFFFD\"}" {
		t.Errorf("%+v, %v", report, err)
	}
}
