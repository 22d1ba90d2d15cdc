package disconnect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
)

// heldSockets are sockets of clients and of devices that one process holds.
type heldSockets struct {
	browsers map[string]domain.Socket
	shelly   map[domain.ConnectionRef][]time.Time // when each was opened
	told     client.ForcedDisconnect
}

func (h *heldSockets) Disconnect(match func(domain.Socket) bool, why client.ForcedDisconnect) (n int) {
	for id, s := range h.browsers {
		if match(s) {
			delete(h.browsers, id)
			h.told = why
			n++
		}
	}
	return n
}

// Drop implements Devices.
func (h *heldSockets) Drop(id domain.ConnectionRef, openedBy time.Time) (n int) {
	var kept []time.Time
	for _, at := range h.shelly[id] {
		if at.After(openedBy) {
			kept = append(kept, at)
		}
	}
	n = len(h.shelly[id]) - len(kept)
	h.shelly[id] = kept
	return n
}

// reportLog takes reports, after it has failed a few times.
type reportLog struct {
	mu       sync.Mutex
	fail     []error
	appended []domain.Event
	keys     []domain.Idempotency
}

func (l *reportLog) Append(_ context.Context, events []domain.Event, opts domain.AppendOptions) (domain.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = append(l.keys, *opts.Idempotency)
	if len(l.fail) > 0 {
		err := l.fail[0]
		l.fail = l.fail[1:]
		return domain.Appended{}, err
	}
	l.appended = append(l.appended, events...)
	return domain.Appended{}, nil
}

func (l *reportLog) reported(t *testing.T) domain.DisconnectCompleted {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.appended) != 1 {
		t.Fatalf("%d reports", len(l.appended))
	}
	e := l.appended[0]
	if e.Actor != "node:here" || e.CausationID != "c1" || e.CorrelationID != "r1" || e.SystemID != "clinica-sol" {
		t.Errorf("the report is %+v", e)
	}
	data, err := e.Decode()
	if err != nil {
		t.Fatal(err)
	}
	return data.(domain.DisconnectCompleted)
}

// raisedBans notes bans, and that they are raised before sockets are dropped.
type raisedBans struct {
	held   *heldSockets
	before int // sockets that were there
	bans   []domain.Ban
}

func (r *raisedBans) Raise(_ context.Context, f domain.Ban) error {
	r.before = len(r.held.browsers)
	r.bans = append(r.bans, f)
	return errors.New("Redis does not take it") // no reason to drop nothing
}

func enforcer(log domain.Appender, bans Bans) *Enforcer {
	return New(Config{Node: "here", Log: log, Bans: bans, Logger: slog.New(slog.DiscardHandler)})
}

// hears lets a process with sockets hear a command of some time ago, and waits
// for its report.
func hears(
	t *testing.T, log *reportLog, held *heldSockets, request domain.DisconnectRequested, ago time.Duration,
) domain.DisconnectCompleted {
	t.Helper()
	raised := &raisedBans{held: held}
	d := enforcer(log, raised)
	if held != nil {
		d.config.Clients, d.config.Devices = []Clients{held}, []Devices{held, &heldSockets{shelly: map[domain.ConnectionRef][]time.Time{}}}
	}
	request.CommandID = "c1"
	e, err := domain.NewEvent("clinica-sol", request, domain.Cause{CorrelationID: "r1", CausationID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	e.Position = domain.Position{Ms: uint64(time.Now().Add(-ago).UnixMilli())}
	before := 0
	if held != nil {
		before = len(held.browsers)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if len(log.fail) == 0 {
		cancel() // also the reports of a process that ends are appended
	}
	if err := d.React(ctx, e); err != nil {
		t.Fatal(err)
	}
	if until := request.BanUntil; until == nil || until.Before(time.Now()) {
		if len(raised.bans) > 0 {
			t.Errorf("raised %+v", raised.bans)
		}
	} else if want := (domain.Ban{
		System: request.TargetSystem, Subject: request.Subject, Role: request.Role, Reason: request.Reason, CommandID: "c1", Until: *until,
	}); len(raised.bans) != 1 || raised.bans[0] != want || raised.before != before {
		t.Errorf("raised %+v when %d of %d sockets were there, want %+v", raised.bans, raised.before, before, want)
	}
	return log.reported(t)
}

// held makes sockets of two systems that were opened so long ago.
func held(ago ...time.Duration) *heldSockets {
	h := &heldSockets{browsers: map[string]domain.Socket{}, shelly: map[domain.ConnectionRef][]time.Time{}}
	for _, system := range []domain.SystemID{"clinica-sol", "centro-luna"} {
		for _, d := range ago {
			at := time.Now().Add(-d)
			id := string(system) + " " + d.String()
			h.browsers[id] = domain.Socket{
				SocketID: id, Subject: "maria", Role: domain.RoleViewer, Systems: []domain.SystemID{system}, ConnectedAt: at}
			plugs := domain.ConnectionRef{System: system, ID: domain.ConnectionID("of-" + system)}
			h.shelly[plugs] = append(h.shelly[plugs], at)
		}
	}
	return h
}

// What a command names is dropped, and nothing else, and counted.
func TestDropWhatIsNamed(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]struct {
		request         domain.DisconnectRequested
		shelly, browser int
	}{
		"a connection and the system's clients": {domain.DisconnectRequested{
			ConnectionID: "of-clinica-sol", TargetSystem: "clinica-sol", CloseSockets: true}, 3, 3},
		"a connection alone": {domain.DisconnectRequested{ConnectionID: "of-clinica-sol", TargetSystem: "clinica-sol"}, 3, 0},
		"another connection": {domain.DisconnectRequested{ConnectionID: "of-nobody", TargetSystem: "clinica-sol"}, 0, 0},
		"a system's clients": {domain.DisconnectRequested{TargetSystem: "clinica-sol", CloseSockets: true}, 0, 3},
		"a socket": {domain.DisconnectRequested{
			SocketID: "clinica-sol 1h0m0s", TargetSystem: "clinica-sol", CloseSockets: true}, 0, 1},
		"a subject": {domain.DisconnectRequested{Subject: "maria", CloseSockets: true}, 0, 6},
		"a subject in a system": {domain.DisconnectRequested{
			Subject: "maria", TargetSystem: "clinica-sol", CloseSockets: true}, 0, 3},
		"another subject": {domain.DisconnectRequested{Subject: "ana", CloseSockets: true}, 0, 0},
		"a role":          {domain.DisconnectRequested{Role: domain.RoleViewer, CloseSockets: true}, 0, 6},
		"another role":    {domain.DisconnectRequested{Role: domain.RoleAdmin, Subject: "maria", CloseSockets: true}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sockets := held(time.Hour, time.Minute, time.Second)
			one.request.Reason, one.request.Reconnect = "maintenance", true
			got := hears(t, &reportLog{}, sockets, one.request, 0)
			if want := (domain.DisconnectCompleted{
				CommandID: "c1", Node: "here", ShellySockets: one.shelly, BrowserSockets: one.browser,
			}); got != want {
				t.Errorf("reported %+v, want %+v", got, want)
			}
			if want := (client.ForcedDisconnect{
				Reason: "maintenance", CommandID: "c1", Reconnect: true, Room: one.request.TargetSystem,
			}); one.browser > 0 && sockets.told != want {
				t.Errorf("told %+v", sockets.told)
			}
			if left := 6 - len(sockets.browsers); left != one.browser {
				t.Errorf("%d clients are gone", left)
			}
		})
	}
	t.Run("nothing is there", func(t *testing.T) {
		t.Parallel()
		request := domain.DisconnectRequested{ConnectionID: "x", CloseSockets: true}
		if got := hears(t, &reportLog{}, nil, request, 0); got.Node != "here" || got.BrowserSockets != 0 {
			t.Errorf("reported %+v", got)
		}
	})
}

// A process that was frozen hears a command late, however late: it drops what was
// open at the time of the command, and not who has come since. Clocks may differ
// a little.
func TestCommandThatIsHeardLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		request := domain.DisconnectRequested{ConnectionID: "of-clinica-sol", TargetSystem: "clinica-sol", CloseSockets: true}
		for _, late := range []time.Duration{20 * time.Millisecond, 10 * time.Second, 15 * time.Minute, 48 * time.Hour} {
			sockets := held(late+time.Hour, late+time.Second, late-time.Millisecond) // the last as by a clock that is ahead
			before := len(sockets.browsers)
			for _, since := range []time.Duration{late - 2*ClockSkew, late / 2, 0} {
				if since >= 0 && since < late-ClockSkew {
					id := "back " + since.String()
					at := time.Now().Add(-since)
					sockets.browsers[id] = domain.Socket{SocketID: id, Systems: []domain.SystemID{"clinica-sol"}, ConnectedAt: at}
					plugs := domain.ConnectionRef{System: "clinica-sol", ID: "of-clinica-sol"}
					sockets.shelly[plugs] = append(sockets.shelly[plugs], at)
				}
			}
			back := len(sockets.browsers) - before
			got := hears(t, &reportLog{}, sockets, request, late)
			if got.BrowserSockets != 3 || got.ShellySockets != 3 || len(sockets.browsers) != 3+back || late > ClockSkew && back == 0 {
				t.Errorf("%v late: reported %+v, and %d of %d who came back are left", late, got, len(sockets.browsers)-3, back)
			}
		}
	})
}

// With a ban there is no coming back: a process that hears of it late drops who
// has, too. A ban that is over is as none.
func TestBanThatIsHeardLate(t *testing.T) {
	t.Parallel()
	for left, want := range map[time.Duration]int{time.Hour: 3, -time.Second: 1} {
		until := time.Now().Add(left).UTC().Round(0) // as it comes out of JSON
		sockets := held(time.Hour, time.Minute, time.Second)
		request := domain.DisconnectRequested{TargetSystem: "clinica-sol", CloseSockets: true, BanUntil: &until}
		if got := hears(t, &reportLog{}, sockets, request, 10*time.Minute); got.BrowserSockets != want {
			t.Errorf("a ban that has %v left: reported %+v", left, got)
		}
	}
}

// A process that learns of a ban disconnects the clients that came in before.
func TestBanThatIsLearned(t *testing.T) {
	t.Parallel()
	sockets := held(time.Hour, 0)
	reports := &reportLog{}
	d := enforcer(reports, &raisedBans{})
	d.Enforce(domain.Ban{Subject: "maria", Until: time.Now().Add(time.Hour)}) // it serves no clients
	d.config.Clients = []Clients{sockets}
	d.Enforce(domain.Ban{System: "clinica-sol", Subject: "maria", CommandID: "c1", Reason: "maintenance", Until: time.Now().Add(time.Hour)})
	want := client.ForcedDisconnect{Reason: "maintenance", CommandID: "c1", Room: "clinica-sol"}
	if len(sockets.browsers) != 2 || sockets.told != want {
		t.Errorf("%d are left, told %+v", len(sockets.browsers), sockets.told)
	}
	// When the command is heard after all, they are counted.
	request, err := domain.NewEvent("clinica-sol",
		domain.DisconnectRequested{CommandID: "c1", TargetSystem: "clinica-sol", CloseSockets: true}, domain.Cause{})
	if err == nil {
		err = d.React(t.Context(), request)
	}
	if err != nil {
		t.Fatal(err)
	}
	report := reports.appended[0]
	if data, err := report.Decode(); err != nil || data.(domain.DisconnectCompleted).BrowserSockets != 2 || len(d.early) > 0 {
		t.Errorf("reported %+v (%v)", data, err)
	}
	for i := range 2 * earlyKept {
		d.config.Clients = []Clients{held(0)}
		d.Enforce(domain.Ban{Subject: "maria", CommandID: fmt.Sprint(i), Until: time.Now().Add(time.Hour)})
	}
	if n := len(d.early); n > earlyKept {
		t.Errorf("%d are kept", n)
	}
}

// A report is appended once whatever happens, under a key that makes a try of
// unknown outcome harmless. What cannot be appended ends in time, as an error.
func TestReportIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &reportLog{fail: []error{
			domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "away"),
			domain.Fail(domain.KindUnknownOutcome, domain.CodeUnknownOutcome, "broke off"),
		}}
		hears(t, log, held(time.Second), domain.DisconnectRequested{TargetSystem: "clinica-sol", CloseSockets: true}, 0)
		if len(log.keys) != 3 || !reflect.DeepEqual(log.keys[0], log.keys[2]) || log.keys[0].Key == "" || log.keys[0].Scope != "node:here" {
			t.Errorf("tried under %+v", log.keys)
		}
	})
	d := enforcer(&reportLog{}, &raisedBans{})
	request, _ := domain.NewEvent("clinica-sol", domain.DisconnectRequested{CommandID: "c1", TargetSystem: "clinica-sol"}, domain.Cause{})
	synctest.Test(t, func(t *testing.T) {
		away := domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "away")
		d := enforcer(&reportLog{fail: slices.Repeat([]error{away}, 1000)}, &raisedBans{})
		began := time.Now()
		if err := d.React(t.Context(), request); !errors.Is(err, away) || time.Since(began) != reportTime {
			t.Errorf("a report that nobody takes: %v after %v", err, time.Since(began))
		}
	})
	synctest.Test(t, func(t *testing.T) { // the log comes back when the process stops, after an outage of any length
		for outage := time.Duration(0); outage < 8*time.Second; outage += 300 * time.Millisecond {
			log := &reportLog{fail: slices.Repeat([]error{domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "away")}, 1000)}
			d := enforcer(log, &raisedBans{})
			ctx, stop := context.WithCancel(t.Context())
			time.AfterFunc(outage, func() {
				log.mu.Lock()
				log.fail = nil
				log.mu.Unlock()
				stop()
			})
			if err := d.React(ctx, request); err != nil {
				t.Errorf("the report of a process that stops after an outage of %v: %v", outage, err)
			}
		}
	})
	request.Data = json.RawMessage(`{"commandId":1}`)
	if d.React(t.Context(), request) == nil {
		t.Error("what is no command is taken for one")
	}
	request.Version = 99
	if err := d.React(t.Context(), request); err != nil {
		t.Errorf("a command of a later build: %v", err)
	}
}

// A disconnect of another deployment drops the device sockets of its connection
// that were open when it was given, and nothing else: no clients, no bans, and no
// report where nothing was dropped. A connection of the same id in another system is
// another one.
func TestDisconnectOfAnotherDeployment(t *testing.T) {
	t.Parallel()
	now, acc1 := time.Now(), domain.ConnectionRef{System: "clinica-sol", ID: "acc1"}
	const sol, luna domain.SystemID = "clinica-sol", "centro-luna"
	ofConnection := domain.DisconnectRequested{ConnectionID: "acc1"}
	ofSubject := domain.DisconnectRequested{Subject: "maria"}
	for name, c := range map[string]struct {
		system  domain.SystemID
		origin  string
		request domain.DisconnectRequested
		devices int // whose sockets go
		clients int // whose sockets go
		bans    int
		report  bool
	}{
		"elsewhere, on a connection":            {sol, "far", ofConnection, 1, 0, 0, true},
		"elsewhere, on another's of this id":    {luna, "far", ofConnection, 0, 0, 0, false},
		"elsewhere, on a subject":               {sol, "far", ofSubject, 0, 0, 0, false},
		"here, on a connection and its clients": {sol, "", ofConnection, 2, 1, 0, true},
		"here, on another's of this id":         {luna, "", ofConnection, 0, 0, 0, true},
		"here, on a subject":                    {sol, "", ofSubject, 0, 1, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			until := now.Add(time.Hour)
			held := &heldSockets{
				browsers: map[string]domain.Socket{
					"b": {SocketID: "b", Subject: "maria", Systems: []domain.SystemID{sol}, ConnectedAt: now.Add(-time.Hour)},
				},
				shelly: map[domain.ConnectionRef][]time.Time{acc1: {now.Add(-time.Hour), now.Add(-time.Minute)}},
			}
			raised := &raisedBans{held: held}
			log := &reportLog{}
			d := enforcer(log, raised)
			d.config.Clients, d.config.Devices = []Clients{held}, []Devices{held}
			request := c.request
			request.CommandID, request.TargetSystem, request.CloseSockets, request.BanUntil = "c1", c.system, true, &until
			e, err := domain.NewEvent(c.system, request, domain.Cause{})
			if err != nil {
				t.Fatal(err)
			}
			e.Position, e.Origin, e.Time = domain.Position{Ms: uint64(now.UnixMilli())}, c.origin, now.Add(-30*time.Minute)
			if err := d.React(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if gone := 2 - len(held.shelly[acc1]); gone != c.devices {
				t.Errorf("%d device sockets went", gone)
			}
			if gone := 1 - len(held.browsers); gone != c.clients || len(raised.bans) != c.bans {
				t.Errorf("%d clients went, %d bans are raised", gone, len(raised.bans))
			}
			if reports := len(log.appended); (reports == 1) != c.report {
				t.Errorf("%d reports", reports)
			}
		})
	}
}
