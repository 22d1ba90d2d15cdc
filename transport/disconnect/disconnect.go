// Package disconnect carries out, in one process, the commands that ask every process to
// disconnect sockets, and reports the result.
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
	// Disconnect tells the clients of all matching sockets the reason, and closes the
	// sockets. A socket that can continue without the reason's room only leaves that
	// room. Disconnect returns the number of both, without waiting for them.
	Disconnect(match func(domain.Socket) bool, why client.ForcedDisconnect) int
}

// Devices holds the sockets of Shelly connections in this process.
type Devices interface {
	// Drop closes the sockets of a connection that were opened at openedBy or before.
	// It returns their number, without waiting for them to close.
	Drop(c domain.ConnectionRef, openedBy time.Time) int
}

// Bans keeps disconnected clients from reconnecting.
type Bans interface {
	// Raise applies a ban in this process and saves it in Redis for the others. If the
	// save fails, Raise returns an error, and the ban still applies in this process.
	Raise(ctx context.Context, ban domain.Ban) error
}

const (
	// ClockSkew is the most by which the clock of this process may be ahead of that of
	// Redis, which times the commands. Without a ban, a command does not apply to a
	// socket that was opened more than ClockSkew after it: a process that was frozen
	// reads commands late, when clients have already reconnected. With a ban, it also
	// closes matching clients that connected later, up to the end of the ban.
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
	Clients []Clients // one for each face; empty in a process that serves no clients
	Devices []Devices
	Logger  *slog.Logger
}

// Enforcer carries out the commands in this process. A process that has nothing to drop
// reports that too, because the caller may wait for it. It is safe for concurrent use.
type Enforcer struct {
	config Config

	mu    sync.Mutex
	early map[string]int // by command id: the clients that Enforce disconnected before this process read the command
}

// earlyKept bounds the entries of early. React removes an entry, but it never runs for a
// command from before this process started.
const earlyKept = 1000

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

// openedBy returns the latest opening time of a socket to which the command applies.
func openedBy(e *domain.Event) time.Time { return e.Position.Time().Add(ClockSkew) }

// raise raises the command's ban, before the sockets are closed. It reports whether the
// command has a ban that has not ended. If Redis does not save the ban, it still applies
// in this process, and every other process raises it as well. So raise returns true then,
// and the sockets are closed.
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

// drop disconnects the matching sockets that were opened at openedBy or before, and
// counts them. The connection belongs to the system in which the command was given.
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

// dropClients disconnects the clients' sockets that match the command and for which
// applies returns true. A socket that can continue without the command's system only
// leaves that room. dropClients returns the number of both.
func (e *Enforcer) dropClients(request *domain.DisconnectRequested, applies func(*domain.Socket) bool) int {
	if !request.CloseSockets {
		return 0
	}
	why := client.ForcedDisconnect{Reason: request.Reason, CommandID: request.CommandID, Reconnect: request.Reconnect}
	if !request.EveryRoom {
		why.Room = request.TargetSystem
	}
	dropped := 0
	for _, face := range e.config.Clients {
		dropped += face.Disconnect(func(s domain.Socket) bool { return matches(request, &s) && applies(&s) }, why)
	}
	return dropped
}

// matches reports whether a socket matches all fields that are set in the command.
func matches(d *domain.DisconnectRequested, s *domain.Socket) bool {
	return (d.SocketID == "" || d.SocketID == s.SocketID) &&
		(d.TargetSystem == "" || slices.Contains(s.Systems, d.TargetSystem)) &&
		(d.Subject == "" || d.Subject == s.Subject) &&
		(d.Role == "" || d.Role == s.Role)
}
