package legacy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
)

// SavedState is what a link's system remembers over restarts.
type SavedState struct {
	// PID and Offset are what the other side needs to send what was missed.
	PID    string `json:"pid,omitempty"`
	Offset string `json:"offset,omitempty"`
	// Pushed is where in our log everything up to went over; nil before the first
	// connection.
	Pushed *domain.Position `json:"pushed,omitempty"`
	// Heard is up to when all that the other side said was taken; zero when it was
	// never heard.
	Heard time.Time `json:"heard,omitzero"`
	// Open says that a connection was not ended in order: what follows Pushed may
	// have gone over already.
	Open bool `json:"open,omitempty"`
	// Revision grows by one with each process that runs it after another did.
	Revision uint64 `json:"revision,omitempty"`
}

// ErrSuperseded says that another process has run the link's system since: what we
// would keep is older than what is kept.
var ErrSuperseded = errors.New("legacy: another process runs the link by now")

// Store keeps what links remember and report. It is durable.
type Store interface {
	// LoadState returns what was kept of a link's system; zero when nothing was.
	LoadState(ctx context.Context, link string, system domain.SystemID) (SavedState, error)
	// SaveState replaces it, or fails with [ErrSuperseded] when what is there is not of the
	// revision was.
	SaveState(ctx context.Context, link string, system domain.SystemID, was uint64, kept SavedState) error
	// AddFindings adds findings of one link's system, and counts to the counts that are
	// there. dropped is how many findings were lost before they got here.
	AddFindings(ctx context.Context, link string, system domain.SystemID, findings []domain.Finding, counts map[string]uint64, dropped uint64) error
}

// Bounds of what waits to be kept.
const (
	maxWaiting = 1000    // findings
	maxPayload = 2 << 10 // bytes of one payload
	maxDetail  = 512     // bytes
)

// reporter gathers what is to be reported, and outlives connections.
type reporter struct {
	link   string
	system domain.SystemID
	store  Store
	logger *slog.Logger

	mu       sync.Mutex
	findings []domain.Finding
	counts   map[string]uint64 // not kept yet
	totals   map[string]uint64 // since this process runs it
	dropped  uint64
	away     bool
}

// add notes a finding, and logs it unless there are many of its kind.
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
	if f.Kind == domain.FindingGap || f.Kind == domain.FindingMaybeLost || f.Kind == domain.FindingMaybeTwice || n == 1 {
		level = slog.LevelWarn // of the others the first, so that somebody looks at the report
	}
	r.logger.Log(context.Background(), level, "a bridge has something to report", "kind", f.Kind, "event", f.Event, "device", f.Device,
		"from", f.From, "to", f.To, "detail", f.Detail)
}

// rejected notes something that the other side said and that is no event of ours.
func (r *reporter) addRejected(e *sioclient.Event, why error) {
	f := domain.Finding{Kind: domain.FindingRejected, Event: domain.EventType(e.Name), Detail: why.Error()}
	if len(e.Args) > 0 {
		f.There = e.Args[0]
	}
	r.add(f)
}

func (r *reporter) count(what string, n uint64) {
	if n == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what] += n
	r.totals[what] += n
}

// status is the counts as part of the link's status.
func (r *reporter) detail() json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return mustJSON(struct {
		Counts map[string]uint64 `json:"counts"`
	}{r.totals})
}

// keep makes durable what was gathered. What cannot be kept now waits.
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
		r.away = false
		return
	}
	if !r.away && ctx.Err() == nil {
		r.logger.Warn("the report of a bridge cannot be kept now", "error", err)
	}
	r.away = true
	r.findings = append(findings, r.findings...)
	if over := len(r.findings) - maxWaiting; over > 0 {
		r.findings = r.findings[over:]
		dropped += uint64(over)
	}
	r.dropped += dropped
	maps.Copy(r.counts, sum(counts, r.counts))
}

func sum(a, b map[string]uint64) map[string]uint64 {
	all := maps.Clone(a)
	for what, n := range b {
		all[what] += n
	}
	return all
}
