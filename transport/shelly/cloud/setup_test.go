package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections/quota"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

// patience is how long a test waits for a condition that must come true.
const patience = 20 * time.Second

const (
	sol  domain.SystemID = "clinica-sol"
	luna domain.SystemID = "centro-luna"
	plug                 = "8cbfea9a1b2c"
	old                  = "b923fa"
)

// bench is a simulated cloud, and a supervisor with a platform in memory.
type bench struct {
	t          *testing.T
	cloud      *shellycloud.Cloud
	url        string
	log        *memoryLog
	store      *memoryStore
	beats      *beats
	supervisor *Supervisor
	output     *testpeer.Buffer
	secrets    []string // that must never appear
	quota      *quota.Devices
	refusals   *shelly.Refusals
}

func quick() Config {
	return Config{
		AllowHost:     func(u *url.URL) bool { return u.Hostname() == "127.0.0.1" },
		TakeoverDelay: time.Millisecond,
		BackoffMin:    5 * time.Millisecond,
		BackoffMax:    40 * time.Millisecond,
		RequestEvery:  time.Millisecond,
		Policy:        shelly.Policy{AtMostEvery: time.Millisecond, AtLeastEvery: 20 * time.Millisecond},
	}
}

func newBench(t *testing.T, cfg Config, of shellycloud.Config) *bench {
	t.Helper()
	return newLimitedBench(t, cfg, of, 50_000)
}

// newLimitedBench is newBench for systems that may have so many devices.
func newLimitedBench(t *testing.T, cfg Config, of shellycloud.Config, most int) *bench {
	t.Helper()
	if of.RequestEvery == 0 {
		of.RequestEvery = -1
	}
	b := &bench{t: t, cloud: shellycloud.New(of), log: newMemoryLog(), beats: &beats{}, output: &testpeer.Buffer{}}
	b.store = &memoryStore{log: b.log, secrets: map[domain.ConnectionID]Secret{}}
	b.quota, b.refusals = quota.New(most, b.store, b.store), shelly.NewRefusals(b.output.Logger())
	b.url = b.listen()
	t.Cleanup(b.cloud.Close) // before the servers, which wait for their sockets
	b.supervisor = b.another(cfg)
	t.Cleanup(b.checkSecrets)
	return b
}

// listen serves the cloud on another address.
func (b *bench) listen() string {
	server := httptest.NewServer(b.cloud)
	b.t.Cleanup(server.Close)
	return server.URL
}

// another returns a supervisor as another process would have it.
func (b *bench) another(cfg Config) *Supervisor {
	r, err := New(cfg, Parts{
		Store: b.store, Secrets: b.store, Known: b.store, Events: b.log, Heartbeats: b.beats, Quota: b.quota, Refusals: b.refusals,
		Logger: b.output.Logger(),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// account adds an account with a plug, and the connection of a system to it.
func (b *bench) account(system domain.SystemID, id domain.ConnectionID) (*shellycloud.Account, *shellycloud.Device) {
	b.t.Helper()
	a := b.cloud.AddAccount(string(id), b.url)
	d := a.AddDevice(plug, 1)
	b.connect(system, id, Secret{AuthCode: a.AuthCode()})
	return a, d
}

func (b *bench) connect(system domain.SystemID, id domain.ConnectionID, s Secret) {
	b.t.Helper()
	b.keepSecret(s)
	b.store.put(id, s)
	b.command(system, domain.ConnectionCreated{ConnectionID: id, Kind: domain.ConnectionShellyCloud})
}

func (b *bench) keepSecret(s Secret) {
	for _, secret := range []string{s.AuthCode, s.AccessToken, s.RefreshToken} {
		if secret != "" {
			b.secrets = append(b.secrets, secret)
		}
	}
}

// command appends an event of another actor.
func (b *bench) command(system domain.SystemID, data domain.Data) {
	b.t.Helper()
	e, err := domain.NewEvent(system, data, domain.Cause{Actor: "maria"})
	if err == nil {
		_, err = b.log.Append(b.t.Context(), []domain.Event{e}, domain.AppendOptions{})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// run runs a supervisor on partition 0. stop ends that and waits.
func (b *bench) run(r *Supervisor) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx, 0)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			b.t.Error("the supervisor does not end")
		}
	})
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) eventually(what string, holds func() bool) {
	b.t.Helper()
	testpeer.Eventually(b.t, what, holds, b.output.Tail)
}

func (b *bench) connected(system domain.SystemID, id domain.ConnectionID) {
	b.t.Helper()
	b.eventually("the connection is connected", func() bool { return b.log.connection(system, id).State == domain.StateConnected })
}

// relay waits until the log has the state of a relay.
func (b *bench) relay(system domain.SystemID, id domain.DeviceID, on bool) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("the relay of %s is %v", id, on), func() bool {
		d := b.log.device(system, id)
		return d != nil && d.RelayOn != nil && *d.RelayOn == on
	})
}

// send switches a relay and returns the result.
func (b *bench) send(c shelly.SwitchCommand) shelly.SwitchResult {
	b.t.Helper()
	return b.await(b.begin(c))
}

func (b *bench) begin(c shelly.SwitchCommand) <-chan shelly.SwitchResult {
	b.t.Helper()
	result := make(chan shelly.SwitchResult, 8)
	if !b.supervisor.Switch(c, func(r shelly.SwitchResult) { result <- r }) {
		b.t.Fatal("nobody holds the device")
	}
	return result
}

func (b *bench) await(result <-chan shelly.SwitchResult) shelly.SwitchResult {
	b.t.Helper()
	select {
	case r := <-result:
		return r
	case <-time.After(patience):
		b.t.Fatalf("the command never ended\n%s", b.output.Tail())
		return shelly.SwitchResult{}
	}
}

func to(on bool, id string) shelly.SwitchCommand {
	return shelly.SwitchCommand{DeviceRef: domain.DeviceRef{System: sol, Device: plug}, CommandID: id, On: on}
}

// checkSecrets looks for secrets in the whole log output and in all events.
func (b *bench) checkSecrets() {
	for _, s := range b.store.all() {
		b.keepSecret(s)
	}
	written := b.output.String()
	for _, e := range b.log.all() {
		written += string(e.AppendEnvelope(nil))
	}
	for _, secret := range b.secrets {
		parts := strings.Split(secret, ".") // a signature alone is too much as well
		for _, part := range append(parts[max(0, len(parts)-1):], secret, url.QueryEscape(secret)) {
			if strings.Contains(written, part) {
				b.t.Errorf("a secret was written: %s", part)
			}
		}
	}
	if strings.Contains(written, "?t=e") {
		b.t.Error("a URL with its token was written")
	}
}

// memoryLog is a log in memory, with its folded state.
type memoryLog struct {
	mu     sync.Mutex
	events []domain.Event
	states map[domain.SystemID]*domain.State
	keys   map[string]domain.Appended
	block  chan struct{} // appends by sources wait for it
	fail   error
}

func newMemoryLog() *memoryLog {
	return &memoryLog{states: map[domain.SystemID]*domain.State{}, keys: map[string]domain.Appended{}}
}

func (l *memoryLog) Append(ctx context.Context, events []domain.Event, opts domain.AppendOptions) (domain.Appended, error) {
	l.mu.Lock()
	block := l.block
	l.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return domain.Appended{}, ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return domain.Appended{}, l.fail
	}
	if k := opts.Idempotency; k != nil {
		if done, ok := l.keys[k.Scope+k.Key]; ok {
			done.Replayed = true
			return done, nil
		}
	}
	var out domain.Appended
	for _, e := range events {
		e.Position = domain.Position{Ms: uint64(len(l.events) + 1)}
		e.Time = time.Now().UTC()
		state := l.state(e.SystemID)
		if _, err := state.Apply(&e); err != nil {
			return domain.Appended{}, err
		}
		l.events = append(l.events, e)
		out.Positions = append(out.Positions, e.Position)
	}
	if k := opts.Idempotency; k != nil {
		l.keys[k.Scope+k.Key] = out
	}
	return out, nil
}

func (l *memoryLog) state(system domain.SystemID) *domain.State {
	if l.states[system] == nil {
		l.states[system] = domain.NewState(system)
	}
	return l.states[system]
}

// hold makes appends wait until release.
func (l *memoryLog) hold() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	block := make(chan struct{})
	l.block = block
	return sync.OnceFunc(func() {
		l.mu.Lock()
		l.block = nil
		l.mu.Unlock()
		close(block)
	})
}

func (l *memoryLog) all() []domain.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

func (l *memoryLog) device(system domain.SystemID, id domain.DeviceID) *domain.Device {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.state(system).Devices[id]; d != nil {
		row := *d
		return &row
	}
	return nil
}

func (l *memoryLog) connection(system domain.SystemID, id domain.ConnectionID) domain.Connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.state(system).Connections[id]; c != nil {
		return *c
	}
	return domain.Connection{}
}

// updates returns the updates of a device so far.
func (l *memoryLog) updates(system domain.SystemID, id domain.DeviceID) (out []domain.DeviceUpdate) {
	for _, e := range l.all() {
		if data, err := e.Decode(); err == nil && e.SystemID == system {
			if u, ok := data.(domain.DeviceUpdate); ok && u.DeviceID == id {
				out = append(out, u)
			}
		}
	}
	return out
}

// said returns the changes of state that were appended for a connection.
func (l *memoryLog) said(id domain.ConnectionID) (out []domain.ConnectionStateChanged) {
	for _, e := range l.all() {
		if data, err := e.Decode(); err == nil {
			if s, ok := data.(domain.ConnectionStateChanged); ok && s.ConnectionID == id {
				out = append(out, s)
			}
		}
	}
	return out
}

// memoryStore is a store on the state of the log. All systems are in partition 0.
type memoryStore struct {
	log *memoryLog

	mu      sync.Mutex
	secrets map[domain.ConnectionID]Secret
	past    []Secret
}

func (s *memoryStore) put(id domain.ConnectionID, secret Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[id] = secret
	s.past = append(s.past, secret)
}

func (s *memoryStore) all() []Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.past)
}

func (s *memoryStore) get(id domain.ConnectionID) Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secrets[id]
}

func (s *memoryStore) Connections(context.Context, int) ([]Connection, error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	var out []Connection
	for system, state := range s.log.states {
		for _, c := range state.Connections {
			out = append(out, connectionOf(system, c))
		}
	}
	return out, nil
}

func connectionOf(system domain.SystemID, c *domain.Connection) Connection {
	return Connection{
		ConnectionRef: domain.ConnectionRef{System: system, ID: c.ConnectionID}, Kind: c.Kind, Name: c.Name, Stopped: c.Stopped, State: c.State,
	}
}

func (s *memoryStore) Connection(_ context.Context, system domain.SystemID, id domain.ConnectionID) (Connection, error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	c := s.log.state(system).Connections[id]
	if c == nil {
		return Connection{}, domain.Fail(domain.KindNotFound, domain.CodeUnknownConnection, "there is none")
	}
	return connectionOf(system, c), nil
}

func (s *memoryStore) Secret(_ context.Context, c domain.ConnectionRef) (Secret, error) {
	if secret := s.get(c.ID); secret != (Secret{}) {
		return secret, nil
	}
	return Secret{}, errors.New("there is no secret")
}

func (s *memoryStore) SaveSecret(_ context.Context, c domain.ConnectionRef, secret Secret) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past = append(s.past, secret)
	if kept := s.secrets[c.ID]; kept.sameCredential(secret) || kept.AuthCode == secret.AuthCode {
		s.secrets[c.ID] = secret
	}
	return nil
}

// FindDevices implements quota.Rows.
func (s *memoryStore) FindDevices(_ context.Context, system domain.SystemID, ids []domain.DeviceID, _ int,
) (known []domain.DeviceID, count int, err error) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	rows := s.log.state(system).Devices
	for _, id := range ids {
		if rows[id] != nil {
			known = append(known, id)
		}
	}
	return known, len(rows), nil
}

// WaitForSystem implements quota.Rows.
func (s *memoryStore) WaitForSystem(context.Context, domain.SystemID, domain.Position) error {
	return nil
}

// Newest implements quota.Log.
func (s *memoryStore) Newest(context.Context, domain.SystemID) (domain.Position, error) {
	return domain.Position{}, nil
}

func (s *memoryStore) Devices(_ context.Context, system domain.SystemID, id domain.ConnectionID) ([]*domain.Device, error) {
	return s.rows(system, func(d *domain.Device) bool { return d.ConnectionID != nil && *d.ConnectionID == id }), nil
}

func (s *memoryStore) Channels(_ context.Context, system domain.SystemID, base domain.DeviceID) ([]*domain.Device, error) {
	return s.rows(system, func(d *domain.Device) bool { return baseOf(d.DeviceID) == base }), nil
}

func (s *memoryStore) rows(system domain.SystemID, wanted func(*domain.Device) bool) (out []*domain.Device) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for _, d := range s.log.state(system).Devices {
		if wanted(d) {
			row := *d
			out = append(out, &row)
		}
	}
	return out
}

// beats records the reports about devices.
type beats struct {
	shelly.Heartbeats // the rest is for devices that dial us

	mu      sync.Mutex
	reports []string
}

func (b *beats) Report(d domain.DeviceRef, online bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports = append(b.reports, fmt.Sprintf("%s/%s %v", d.System, d.Device, online))
}

func (b *beats) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.reports)
}

func (b *beats) last() string {
	all := b.all()
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// statusFrame is a StatusOnChange as the socket writes it.
func statusFrame(wireID string, status map[string]any) string {
	gen := "G2"
	raw, _ := json.Marshal(map[string]any{
		"event": "Shelly:StatusOnChange", "device": map[string]any{"id": wireID, "code": "S3PL-00112EU", "gen": gen}, "status": status,
	})
	return string(raw)
}
