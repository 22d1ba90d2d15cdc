package legacy

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
)

// Bounds of a report that waits for the store.
const (
	maxWaiting = 1000    // findings; beyond that the oldest are discarded
	maxPayload = 2 << 10 // bytes; longer payloads are left out
	maxDetail  = 512     // bytes
)

// reporter collects the findings and counts of a link's system until flush stores them. It
// outlives connections, and is safe for concurrent use.
type reporter struct {
	link   string
	system domain.SystemID
	store  Store
	logger *slog.Logger

	mu       sync.Mutex
	findings []domain.Finding
	counts   map[string]uint64 // since the last flush
	totals   map[string]uint64 // since the start of this process
	dropped  uint64
	failing  bool // the last flush failed
}

// add adds a finding, and logs it.
func (r *reporter) add(f domain.Finding) {
	f.System, f.Link, f.At = r.system, r.link, time.Now().UTC().Truncate(time.Microsecond)
	f.Detail = domain.TruncateText(f.Detail, maxDetail)
	for _, payload := range []*json.RawMessage{&f.Here, &f.There} {
		if len(*payload) > maxPayload {
			*payload = nil
		}
	}
	r.count(string(f.Kind), 1)
	r.mu.Lock()
	if len(r.findings) == maxWaiting {
		r.findings = r.findings[1:]
		r.dropped++
	}
	r.findings = append(r.findings, f)
	n := r.totals[string(f.Kind)]
	r.mu.Unlock()
	level := slog.LevelDebug
	if n == 1 || slices.Contains([]domain.FindingKind{domain.FindingGap, domain.FindingMaybeLost, domain.FindingMaybeTwice}, f.Kind) {
		level = slog.LevelWarn // of the other kinds only the first: it points operators to the report
	}
	r.logger.Log(context.Background(), level, "bridge: a finding for the report", "kind", f.Kind, "event", f.Event, "device", f.Device,
		"from", f.From, "to", f.To, "detail", f.Detail)
}

// addRejected adds the finding that the server sent something that is not an event of plugcast.
func (r *reporter) addRejected(e *sioclient.Event, reason error) {
	f := domain.Finding{Kind: domain.FindingRejected, Event: domain.EventType(e.Name), Detail: reason.Error()}
	if len(e.Args) > 0 {
		f.There = e.Args[0]
	}
	r.add(f)
}

func (r *reporter) count(name string, n uint64) {
	if n == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[name] += n
	r.totals[name] += n
}

// detail returns the counts, for the link's status.
func (r *reporter) detail() json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return mustJSON(struct {
		Counts map[string]uint64 `json:"counts"`
	}{r.totals})
}

// flush stores the findings and counts. If the store fails, the next flush tries again.
func (r *reporter) flush(ctx context.Context) {
	r.mu.Lock()
	findings, counts, dropped := r.findings, r.counts, r.dropped
	r.findings, r.counts, r.dropped = nil, map[string]uint64{}, 0
	r.mu.Unlock()
	if len(findings) == 0 && len(counts) == 0 && dropped == 0 {
		return
	}
	err := r.store.AddFindings(ctx, r.link, r.system, findings, counts, dropped)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.failing = false
		return
	}
	if !r.failing && ctx.Err() == nil {
		r.logger.Warn("the report of a bridge cannot be stored; trying again", "error", err)
	}
	r.failing = true
	r.findings = append(findings, r.findings...)
	if over := len(r.findings) - maxWaiting; over > 0 {
		r.findings = r.findings[over:]
		dropped += uint64(over)
	}
	r.dropped += dropped
	addCounts(r.counts, counts)
}

func addCounts(to, counts map[string]uint64) {
	for name, n := range counts {
		to[name] += n
	}
}
