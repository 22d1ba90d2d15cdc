package rest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Outcomes lets a command wait for the events that it causes.
type Outcomes interface {
	// Follow calls fn with every event of the system after a position, in order, on
	// the calling goroutine, until fn returns true. It returns the error of ctx if
	// that ends before.
	Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(*domain.Event) (done bool)) error
}

// Nodes lists the processes of the deployment.
type Nodes interface {
	// Expected returns the names of the processes that react to a command for all of
	// them. live are running. missing fell silent a moment ago without signing off;
	// their sockets may still be open. Unless asOf is zero, Expected leaves out the
	// processes that started after it.
	Expected(ctx context.Context, asOf time.Time) (live, missing []string, err error)
}

// NodeReport counts the sockets that one process disconnected for a command.
type NodeReport struct {
	Node           string `json:"node"`
	ShellySockets  int    `json:"shellySockets" doc:"Closed sockets of devices and of Shelly Cloud accounts"`
	BrowserSockets int    `json:"browserSockets" doc:"Sockets of clients, over any protocol, that were closed or left the room"`
}

// DisconnectAnswer is the answer to a command that disconnects sockets.
type DisconnectAnswer struct {
	CommandAnswer
	Nodes      []NodeReport `json:"nodes,omitempty" doc:"The disconnected sockets of each process; only with wait"`
	Unanswered []string     `json:"unanswered,omitempty" doc:"The processes that did not answer in time"`
}

type disconnectOutput struct {
	Status int
	Replay
	Body DisconnectAnswer
}

// waitsForNodes describes the waiting of a command that disconnects sockets.
const waitsForNodes = "With `wait`, the answer is 200 with outcome `completed` as soon as every process has answered; `nodes` counts the " +
	"sockets that each disconnected. If the wait ends before, the answer is 202 with outcome `unknown`, and `unanswered` names the other " +
	"processes: they may be frozen with their sockets open, and disconnect them when they run again."

// disconnectAndWait runs a command whose last event, in the system, is a
// disconnect-requested. If the caller asks to wait, it waits for the reports of the
// given nodes, or of all processes of the deployment if none are given. A repeat of a
// command finds the reports in history.
func (a *API) disconnectAndWait(
	ctx context.Context, system domain.SystemID, in *WaitParam, command func() (domain.Receipt, error), nodes ...string,
) (*disconnectOutput, error) {
	timeout, err := in.duration()
	if err != nil {
		return nil, err
	}
	waits := timeout > 0 && a.outcomes != nil
	d := disconnectReport{expected: nodes, targeted: len(nodes) > 0}
	if waits && !d.targeted { // before the command, because a process that starts later does not react to it
		if d.live, d.expected, err = a.expected(ctx, time.Time{}); err != nil {
			return nil, unavailable(err)
		}
	}
	receipt, err := command()
	if err != nil {
		return nil, err
	}
	out := &disconnectOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer = commandAnswer(receipt)
	if !waits || receipt.Unchanged {
		return out, nil
	}
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if receipt.Replayed && !d.targeted {
		acceptedAt := receipt.Position.Time()
		if d.live, d.expected, err = a.expected(waiting, acceptedAt); err != nil {
			a.logNoOutcome(ctx, err)
		}
	}
	if err == nil {
		d.commandID = receipt.CommandID
		err = a.follow(waiting, system, receipt.Position, d.record)
	}
	if err != nil {
		a.forgetDeparted(ctx, &d)
	}
	out.Body.Nodes, out.Body.Unanswered = d.reports, d.unanswered()
	out.Body.Outcome = domain.OutcomeUnknown
	if d.complete() {
		out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	}
	return out, nil
}

// expected returns the processes that should answer, and those of them that are live.
func (a *API) expected(ctx context.Context, asOf time.Time) (live, all []string, err error) {
	live, missing, err := a.nodes.Expected(ctx, asOf)
	return live, slices.Concat(live, missing), err
}

// forgetDeparted removes from an incomplete report the processes that signed off since
// the command: they have no open sockets, and will never answer.
func (a *API) forgetDeparted(ctx context.Context, d *disconnectReport) {
	if len(d.live) == 0 {
		return
	}
	_, still, err := a.expected(ctx, time.Time{})
	if err != nil {
		a.logNoOutcome(ctx, err)
		return
	}
	d.expected = slices.DeleteFunc(d.expected, func(node string) bool {
		return slices.Contains(d.live, node) && !slices.Contains(still, node) && !d.answered(node)
	})
}

// disconnectReport collects the reports of processes on one command.
type disconnectReport struct {
	commandID string
	expected  []string // the processes that should answer
	live      []string // those that were live when the command was accepted
	targeted  bool     // the command concerns only the expected processes
	reports   []NodeReport
}

// record adds the report of an event, if it is one on this command. It returns true
// once all expected processes have answered.
func (d *disconnectReport) record(e *domain.Event) (done bool) {
	// Processes of another deployment, whose events a bridge imports, may have the same names.
	if e.Type != domain.TypeDisconnectCompleted || e.CausationID != d.commandID || e.Origin != "" {
		return false
	}
	data, err := e.Decode()
	c, ok := data.(domain.DisconnectCompleted)
	if err != nil || !ok || c.CommandID != d.commandID || d.answered(c.Node) {
		return false
	}
	if d.targeted && !slices.Contains(d.expected, c.Node) && c.ShellySockets+c.BrowserSockets == 0 {
		return false
	}
	d.reports = append(d.reports, NodeReport{Node: c.Node, ShellySockets: c.ShellySockets, BrowserSockets: c.BrowserSockets})
	slices.SortFunc(d.reports, func(a, b NodeReport) int { return strings.Compare(a.Node, b.Node) })
	return len(d.expected) > 0 && d.complete()
}

// complete reports whether all expected processes have answered. A repeat may expect
// none, if all processes were restarted since the command; then one report is enough.
func (d *disconnectReport) complete() bool { return len(d.reports) > 0 && len(d.unanswered()) == 0 }

func (d *disconnectReport) answered(node string) bool {
	return slices.ContainsFunc(d.reports, func(r NodeReport) bool { return r.Node == node })
}

// unanswered returns the sorted names of the expected processes that did not answer.
func (d *disconnectReport) unanswered() (names []string) {
	for _, node := range d.expected {
		if !d.answered(node) {
			names = append(names, node)
		}
	}
	slices.Sort(names)
	return names
}

// SwitchAnswer is the answer to a relay command.
type SwitchAnswer struct {
	CommandAnswer
	Error string `json:"error,omitempty" doc:"The reason if the outcome is not completed"`
}

type switchOutput struct {
	Status int
	Replay
	Body SwitchAnswer
}

// answerSwitch answers a relay command. It waits for the outcome if the caller asks to.
func (a *API) answerSwitch(ctx context.Context, system domain.SystemID, in *WaitParam, receipt domain.Receipt) *switchOutput {
	out := &switchOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer = commandAnswer(receipt)
	timeout := in.waiting() // the command's request checked it
	if timeout == 0 || a.outcomes == nil {
		return out
	}
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_ = a.follow(waiting, system, receipt.Position, func(e *domain.Event) bool {
		if e.Type != domain.TypeRelaySwitchCompleted {
			return false
		}
		data, err := e.Decode()
		c, ok := data.(domain.RelaySwitchCompleted)
		if err != nil || !ok || c.CommandID != receipt.CommandID {
			return false
		}
		out.Status, out.Body.Outcome, out.Body.Error = http.StatusOK, c.Outcome, c.Error
		return true
	})
	return out
}

// follow waits for an outcome, and logs an error other than the end of ctx. The command
// was accepted in any case, so the caller gets an answer without an outcome instead of
// the error.
func (a *API) follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(*domain.Event) bool) error {
	err := a.outcomes.Follow(ctx, system, after, fn)
	if err != nil && ctx.Err() == nil {
		a.logNoOutcome(ctx, err)
	}
	return err
}

func (a *API) logNoOutcome(ctx context.Context, err error) {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		a.log.WarnContext(ctx, "could not read the outcome of a command", "requestId", requestID(ctx), "error", err)
	}
}
