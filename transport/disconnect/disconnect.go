// Package disconnect carries out, in one process, the commands that ask every process to
// drop sockets, and reports the result.
package disconnect

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
)

// Clients holds the sockets of clients that are connected to this process over one
// face.
type Clients interface {
	// Disconnect closes the sockets that match, after telling their clients why, and
	// returns how many there were, without waiting for them.
	Disconnect(match func(domain.Socket) bool, why client.ForcedDisconnect) int
}

// Devices holds sockets of connections in this process.
type Devices interface {
	// Drop closes the sockets of a connection that were opened by then, and returns
	// how many there were, without waiting for them.
	Drop(c domain.ConnectionRef, openedBy time.Time) int
}

// Bans keeps disconnected clients from reconnecting.
type Bans interface {
	// Raise holds a ban in this process, also when it returns an error because the
	// others cannot be told.
	Raise(ctx context.Context, ban domain.Ban) error
}

const (
	// ClockSkew is how far the clock of this process may be ahead of that of Redis,
	// which times the commands. A socket that was opened this much later than a
	// command is not meant by it: a process that was frozen hears commands late,
	// when clients have come back already.
	ClockSkew = 2 * time.Second

	reportTime     = 10 * time.Second // for one report, over all tries
	lastReportTime = time.Second      // the same when the process ends
)

// Config holds the parts that an [Enforcer] works with. Node, Log, Bans and Logger are
// required.
type Config struct {
	Node    string // name of this process
	Log     domain.Appender
	Bans    Bans
	Clients []Clients // of each face; none in a process that serves no clients
	Devices []Devices
	Logger  *slog.Logger
}

// Enforcer carries out the commands in this process. A process that has nothing to drop
// reports that too, because the caller may wait for it. It is safe for concurrent use.
type Enforcer struct {
	config Config

	mu    sync.Mutex
	early map[string]int // sockets that went by a command's ban before the command was heard, by its id
}

const earlyKept = 1000 // commands that are not heard after their ban: from before this process began

// New makes an Enforcer.
func New(config Config) *Enforcer { return &Enforcer{config: config, early: map[string]int{}} }

// React is the [domain.Reaction] to a command: it carries it out and reports the result.
// It may be repeated, because it ignores sockets that are closed already.
func (e *Enforcer) React(ctx context.Context, event domain.Event) error {
	data, err := event.Decode()
	if err != nil {
		return err
	}
	request, ok := data.(domain.DisconnectRequested)
	if !ok {
		return nil // of a later version
	}
	if event.Origin != "" {
		return e.reactForeign(ctx, &event, &request)
	}
	by := openedBy(&event)
	if e.raise(ctx, &request) {
		by = *request.BanUntil // clients that have reconnected since are banned as well
	}
	done := e.drop(event.SystemID, &request, by)
	done.CommandID, done.Node = request.CommandID, e.config.Node
	done.BrowserSockets += e.takeEarly(request.CommandID)
	return e.report(ctx, &event, done)
}

// reactForeign carries out a command of another deployment: it drops the device
// sockets of the connection here. It ignores the clients and the ban of the command,
// because they belong to the other deployment; this deployment's own tokens decide
// which clients may connect here. Nobody waits for an empty report.
func (e *Enforcer) reactForeign(ctx context.Context, event *domain.Event, request *domain.DisconnectRequested) error {
	by := openedBy(event)
	if given := event.Time.Add(ClockSkew); given.Before(by) {
		by = given // a link that was cut brings old commands
	}
	devices := *request
	devices.CloseSockets = false
	done := e.drop(event.SystemID, &devices, by)
	if done.ShellySockets == 0 {
		return nil
	}
	done.CommandID, done.Node = request.CommandID, e.config.Node
	return e.report(ctx, event, done)
}

// report appends the result once, however many attempts it needs; a stopping process
// tries for a moment longer. The counts cannot be determined a second time, so the
// reaction does not retry a report that failed for good.
func (e *Enforcer) report(ctx context.Context, event *domain.Event, done domain.DisconnectCompleted) error {
	report, err := domain.NewEvent(event.SystemID, done, domain.Cause{
		Actor: "node:" + e.config.Node, CorrelationID: event.CorrelationID, CausationID: done.CommandID,
	})
	if err != nil {
		return err
	}
	appending, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastReportTime, cancel) })()
	once := domain.AppendOptions{Idempotency: &domain.Idempotency{Scope: report.Actor, Key: "disconnect/" + report.CausationID}}
	if _, err := domain.AppendUntilDone(appending, e.config.Log, []domain.Event{report}, once, nil); err != nil {
		return domain.Permanent(fmt.Errorf("cannot report the dropped sockets: %w", err))
	}
	return nil
}

// openedBy is when a socket was opened at the latest that a command can mean.
func openedBy(e *domain.Event) time.Time { return e.Position.Time().Add(ClockSkew) }

// raise keeps out whom the command throws out, before that, and reports whether
// there is a ban for now. One that Redis does not take holds here, and the
// others write it too: no reason to leave the sockets open.
func (e *Enforcer) raise(ctx context.Context, request *domain.DisconnectRequested) bool {
	if request.BanUntil == nil || !time.Now().Before(*request.BanUntil) || request.SocketID != "" || request.ConnectionID != "" {
		return false // a socket does not come back, and a connection is kept out by being stopped
	}
	err := e.config.Bans.Raise(ctx, domain.Ban{
		System: request.TargetSystem, Subject: request.Subject, Role: request.Role,
		Reason: request.Reason, CommandID: request.CommandID, Until: *request.BanUntil,
	})
	if err != nil {
		e.config.Logger.Error("cannot save a ban: it holds in this process only", "command", request.CommandID, "error", err)
	}
	return true
}

// Enforce disconnects the local clients that a ban of another process matches: this
// process has not read the command yet, or never will.
func (e *Enforcer) Enforce(ban domain.Ban) {
	request := &domain.DisconnectRequested{
		CommandID: ban.CommandID, TargetSystem: ban.System, Subject: ban.Subject, Role: ban.Role, Reason: ban.Reason, CloseSockets: true,
	}
	dropped := e.dropClients(request, func(s *domain.Socket) bool {
		return !s.ConnectedAt.After(ban.Until) && (ban.System == "" || s.Role != domain.RoleStaff) // a ban of a system does not apply to staff
	})
	if dropped == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.early) >= earlyKept {
		clear(e.early)
	}
	e.early[ban.CommandID] += dropped
}

func (e *Enforcer) takeEarly(commandID string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.early[commandID]
	delete(e.early, commandID)
	return n
}

// drop closes the matching sockets that were opened in time, and counts them. The
// connection belongs to the system in which the command was given.
func (e *Enforcer) drop(
	system domain.SystemID, request *domain.DisconnectRequested, openedBy time.Time,
) (done domain.DisconnectCompleted) {
	if request.ConnectionID != "" {
		for _, s := range e.config.Devices {
			done.ShellySockets += s.Drop(domain.ConnectionRef{System: system, ID: request.ConnectionID}, openedBy)
		}
	}
	done.BrowserSockets = e.dropClients(request, func(s *domain.Socket) bool { return !s.ConnectedAt.After(openedBy) })
	return done
}

// dropClients closes the sockets of clients that match the command and are meant,
// and returns how many there were. Of a command on one system, those that live on
// without it leave its room alone.
func (e *Enforcer) dropClients(request *domain.DisconnectRequested, meant func(*domain.Socket) bool) int {
	if !request.CloseSockets {
		return 0
	}
	why := client.ForcedDisconnect{Reason: request.Reason, CommandID: request.CommandID, Reconnect: request.Reconnect}
	if !request.EveryRoom {
		why.Room = request.TargetSystem
	}
	dropped := 0
	for _, face := range e.config.Clients {
		dropped += face.Disconnect(func(s domain.Socket) bool { return named(request, &s) && meant(&s) }, why)
	}
	return dropped
}

// named reports whether a socket matches all that the command says.
func named(d *domain.DisconnectRequested, s *domain.Socket) bool {
	return (d.SocketID == "" || d.SocketID == s.SocketID) &&
		(d.TargetSystem == "" || slices.Contains(s.Systems, d.TargetSystem)) &&
		(d.Subject == "" || d.Subject == s.Subject) &&
		(d.Role == "" || d.Role == s.Role)
}
