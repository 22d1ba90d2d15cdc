package legacy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/timeline"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
	"github.com/plugcast/plugcast/transport/testpeer/legacyserver"
	"github.com/plugcast/plugcast/transport/testpeer/netcut"
)

const (
	clinic     = domain.SystemID("clinica-sol")
	deployment = "0192f0a0-0000-7000-8000-000000000001"
	patience   = 30 * time.Second
)

// memoryLog is our log of one system, in memory.
type memoryLog struct {
	*clienttest.Source

	mu      sync.Mutex
	keys    map[string]domain.Position
	failing bool
	refused domain.DeviceID
	failed  int // number of appends that failed
	seen    int // number of other appends
}

func newMemoryLog() *memoryLog {
	return &memoryLog{Source: clienttest.NewSource(), keys: map[string]domain.Position{}}
}

func (l *memoryLog) Append(_ context.Context, events []domain.Event, opts domain.AppendOptions) (domain.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing && opts.Idempotency != nil { // an event from the link
		l.failed++
		return domain.Appended{}, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "away")
	}
	if l.refused != "" && events[0].Device() == l.refused {
		return domain.Appended{}, domain.Invalid(domain.CodeInvalidUpdate, "refused")
	}
	l.seen++
	if k := opts.Idempotency; k != nil {
		if at, known := l.keys[k.Key]; known {
			return domain.Appended{Positions: []domain.Position{at}, Replayed: true}, nil
		}
	}
	var appended domain.Appended
	for _, e := range l.Add(clinic, events...) {
		appended.Positions = append(appended.Positions, e.Position)
		if opts.Idempotency != nil {
			l.keys[opts.Idempotency.Key] = e.Position
		}
	}
	return appended, nil
}

func (l *memoryLog) End(context.Context, domain.SystemID) (at domain.Position, err error) {
	for _, e := range l.all() {
		at = e.Position
	}
	return at, nil
}

func (l *memoryLog) Follow(
	ctx context.Context, system domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error,
) error {
	return timeline.Follow(ctx, l.Source, system, after, fn)
}

func (l *memoryLog) all() []domain.Event { return l.Events(clinic) }

// followed reports whether the link follows the log.
func (l *memoryLog) followed() bool { return l.Subscribers(clinic) > 0 }

func (l *memoryLog) fail(failing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = failing
}

// refuse makes the log refuse events of a device.
func (l *memoryLog) refuse(device domain.DeviceID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = device
}

// tried returns how many appends have failed.
func (l *memoryLog) tried() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// asked returns how many appends have not failed.
func (l *memoryLog) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

// memoryStore is a Store in memory.
type memoryStore struct {
	mu       sync.Mutex
	saved    SavedState
	findings []domain.Finding
	counts   map[string]uint64
	failing  bool
	failed   int              // number of loads that failed
	onSave   func(SavedState) // called with each state before it is saved, if not nil
}

var errAway = errors.New("away")

func (s *memoryStore) fail(failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = failing
}

// asked returns how many loads have failed.
func (s *memoryStore) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *memoryStore) LoadState(context.Context, string, domain.SystemID) (SavedState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing {
		s.failed++
		return SavedState{}, errAway
	}
	return s.saved, nil
}

func (s *memoryStore) SaveState(_ context.Context, _ string, _ domain.SystemID, was uint64, saved SavedState) error {
	if s.onSave != nil {
		s.onSave(saved)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing {
		return errAway
	}
	if s.saved.Revision != was {
		return ErrSuperseded
	}
	s.saved = saved
	return nil
}

func (s *memoryStore) AddFindings(
	_ context.Context, _ string, _ domain.SystemID, findings []domain.Finding, counts map[string]uint64, _ uint64,
) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.findings = append(s.findings, findings...)
	addCounts(s.counts, counts)
	return nil
}

// found returns the reported findings of the given kinds, or of all kinds.
func (s *memoryStore) found(kinds ...domain.FindingKind) []domain.Finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	var some []domain.Finding
	for _, f := range s.findings {
		if len(kinds) == 0 || slices.Contains(kinds, f.Kind) {
			some = append(some, f)
		}
	}
	return some
}

func (s *memoryStore) counted(what string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[what]
}

// bundle is a server, the network to it, and a link that a test can start and stop.
type bundle struct {
	t      *testing.T
	server *legacyserver.Server
	proxy  *netcut.Network
	log    *memoryLog
	store  *memoryStore
	config string
	quota  domain.DeviceQuota
	stop   func()
}

// setup starts a server and a link to it. more is added to the link's configuration, and system
// to its system's.
func setup(t *testing.T, options legacyserver.Options, more, system string) *bundle {
	t.Helper()
	b := &bundle{t: t, server: legacyserver.Start(t, options), log: newMemoryLog(), store: &memoryStore{counts: map[string]uint64{}}}
	b.proxy = netcut.New(t, b.server.Addr())
	b.config = fmt.Sprintf(`{"bridges":[{"name":"old","kind":"socketio","url":%q%s,"systems":[{"system":%q,"direction":"both"%s}]}]}`,
		b.proxy.URL(), more, clinic, system)
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

// noStatuses discards statuses.
type noStatuses struct{}

func (noStatuses) Put(context.Context, string, json.RawMessage) error { return nil }

// start runs the link, as a new process does, until stop, and waits until it has joined.
func (b *bundle) start() {
	b.t.Helper()
	b.run()
	b.joined()
}

func (b *bundle) run() {
	b.t.Helper()
	logger := logger()
	parts := Parts{Deployment: deployment, Log: b.log, Reader: b.log, Store: b.store, Quota: b.quota, Logger: logger}
	links, err := bridge.Load(strings.NewReader(b.config), map[string]bridge.Factory{Kind: New(parts)}, os.Getenv)
	if err != nil {
		b.t.Fatal(err)
	}
	runner := bridge.NewRunner(bridge.RunnerConfig{
		Links: links, Node: "test", Partition: func(domain.SystemID) int { return 0 }, Statuses: noStatuses{}, Logger: logger,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { runner.Run(ctx, 0) })
	b.stop = func() {
		cancel()
		running.Wait()
	}
}

func logger() *slog.Logger {
	var to io.Writer = io.Discard
	if testing.Verbose() {
		to = os.Stderr
	}
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// joined waits until the link has joined its room.
func (b *bundle) joined() {
	b.t.Helper()
	b.until("the link has joined", func() bool { return b.server.Members(string(clinic)) == 1 })
}

// until waits for a condition.
func (b *bundle) until(what string, holds func() bool) {
	b.t.Helper()
	testpeer.Eventually(b.t, what, holds)
}

// theirs is an update for the server to emit.
func theirs(n int) legacyserver.Emission {
	return legacyserver.Emission{Room: string(clinic), Event: "device-update", Args: []any{map[string]any{
		"deviceId": "theirs", "online": true, "relayOn": n%2 == 0, "n": n,
	}}}
}

// ours appends an update to our log.
func (b *bundle) ours(n int) { b.t.Helper(); b.oursOf("ours", n) }

func (b *bundle) oursOf(device domain.DeviceID, n int) {
	b.t.Helper()
	e, err := domain.NewEvent(clinic, domain.DeviceUpdate{
		DeviceID: device, Online: domain.Some(true), RelayOn: domain.Some(n%2 == 0),
		Attributes: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)),
	}, domain.Cause{Actor: "test"})
	if err == nil {
		_, err = b.log.Append(b.t.Context(), []domain.Event{e}, domain.AppendOptions{})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// pulled lists the numbers of the events in our log that came over the link.
func (b *bundle) pulled() []int {
	var numbers []int
	for _, e := range b.log.all() {
		if e.Origin != "socketio:old" {
			continue
		}
		var data struct{ Attributes struct{ N int } }
		if err := json.Unmarshal(e.Data, &data); err != nil {
			b.t.Fatal(err)
		}
		numbers = append(numbers, data.Attributes.N)
	}
	return numbers
}

// received lists the numbers of the events that the server got from us.
func (b *bundle) received() []int {
	var numbers []int
	for _, got := range b.server.Received() {
		var payload struct{ N int }
		if err := json.Unmarshal(got.Payload, &payload); err != nil {
			b.t.Fatal(err)
		}
		numbers = append(numbers, payload.N)
	}
	return numbers
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
