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
	"github.com/plugcast/plugcast/transport/bridge/socketio"
)

// Kept is what a link's system remembers over restarts.
type Kept struct {
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
	// Kept returns what was kept of a link's system; zero when nothing was.
	Kept(ctx context.Context, link string, system domain.SystemID) (Kept, error)
	// Keep replaces it, or fails with [ErrSuperseded] when what is there is not of the
	// revision was.
	Keep(ctx context.Context, link string, system domain.SystemID, was uint64, kept Kept) error
	// Report adds findings of one link's system, and counts to the counts that are
	// there. dropped is how many findings were lost before they got here.
	Report(ctx context.Context, link string, system domain.SystemID, findings []domain.Finding, counts map[string]uint64, dropped uint64) error
}

// Bounds of what waits to be kept.
const (
	maxWaiting = 1000    // findings
	maxKept    = 2 << 10 // bytes of one payload
	maxDetail  = 512     // bytes
)

// journal gathers what is to be reported, and outlives connections.
type journal struct {
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
func (j *journal) add(f domain.Finding) {
	f.System, f.Link, f.At = j.system, j.link, time.Now().UTC().Truncate(time.Microsecond)
	f.Detail = domain.TruncateText(f.Detail, maxDetail)
	for _, payload := range []*json.RawMessage{&f.Here, &f.There} {
		if len(*payload) > maxKept {
			*payload = nil
		}
	}
	j.count(string(f.Kind), 1)
	j.mu.Lock()
	if len(j.findings) == maxWaiting {
		j.findings = j.findings[1:]
		j.dropped++
	}
	j.findings = append(j.findings, f)
	n := j.totals[string(f.Kind)]
	j.mu.Unlock()
	level := slog.LevelDebug
	if f.Kind == domain.FindingGap || f.Kind == domain.FindingMaybeLost || f.Kind == domain.FindingMaybeTwice || n == 1 {
		level = slog.LevelWarn // of the others the first, so that somebody looks at the report
	}
	j.logger.Log(context.Background(), level, "a bridge has something to report", "kind", f.Kind, "event", f.Event, "device", f.Device,
		"from", f.From, "to", f.To, "detail", f.Detail)
}

// rejected notes something that the other side said and that is no event of ours.
func (j *journal) rejected(e *socketio.Event, why error) {
	f := domain.Finding{Kind: domain.FindingRejected, Event: domain.EventType(e.Name), Detail: why.Error()}
	if len(e.Args) > 0 {
		f.There = e.Args[0]
	}
	j.add(f)
}

func (j *journal) count(what string, n uint64) {
	if n == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts[what] += n
	j.totals[what] += n
}

// status is the counts as part of the link's status.
func (j *journal) status() json.RawMessage {
	j.mu.Lock()
	defer j.mu.Unlock()
	return mustJSON(struct {
		Counts map[string]uint64 `json:"counts"`
	}{j.totals})
}

// keep makes durable what was gathered. What cannot be kept now waits.
func (j *journal) keep(ctx context.Context) {
	j.mu.Lock()
	findings, counts, dropped := j.findings, j.counts, j.dropped
	j.findings, j.counts, j.dropped = nil, map[string]uint64{}, 0
	j.mu.Unlock()
	if len(findings) == 0 && len(counts) == 0 && dropped == 0 {
		return
	}
	err := j.store.Report(ctx, j.link, j.system, findings, counts, dropped)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		j.away = false
		return
	}
	if !j.away && ctx.Err() == nil {
		j.logger.Warn("the report of a bridge cannot be kept now", "error", err)
	}
	j.away = true
	j.findings = append(findings, j.findings...)
	if over := len(j.findings) - maxWaiting; over > 0 {
		j.findings = j.findings[over:]
		dropped += uint64(over)
	}
	j.dropped += dropped
	maps.Copy(j.counts, sum(counts, j.counts))
}

func sum(a, b map[string]uint64) map[string]uint64 {
	all := maps.Clone(a)
	for what, n := range b {
		all[what] += n
	}
	return all
}
