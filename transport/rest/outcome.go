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

// Outcomes is where a command that waits finds out what became of it.
type Outcomes interface {
	// Follow gives fn every event of the system after a position, in order, from
	// the calling goroutine, until fn says that it is done. It fails with the error
	// of ctx when that ends before.
	Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(*domain.Event) (done bool)) error
}

// Nodes knows the processes of the deployment.
type Nodes interface {
	// Expected names the processes that hear what is asked of all: those that live,
	// and those that are missing, because they fell silent a moment ago without
	// leaving; their sockets may still be open. Those that began after asOf are left
	// out, unless that is zero.
	Expected(ctx context.Context, asOf time.Time) (live, missing []string, err error)
}

// NodeReport is what one process did for a command that drops sockets.
type NodeReport struct {
	Node           string `json:"node"`
	ShellySockets  int    `json:"shellySockets" doc:"Of devices, and of accounts of the Shelly Cloud"`
	BrowserSockets int    `json:"browserSockets" doc:"Of clients, whatever their face"`
}

// DropAnswer is the answer to a command that drops sockets.
type DropAnswer struct {
	CommandAnswer
	Nodes      []NodeReport `json:"nodes,omitempty" doc:"What each process did; only when the answer waited"`
	Unanswered []string     `json:"unanswered,omitempty" doc:"The processes that did not answer in time: they may be frozen, with their sockets open. They drop them when they hear of it"`
}

type droppedOutput struct {
	Status int
	Replay
	Body DropAnswer
}

// waitsForNodes describes the waiting of a command that drops sockets.
const waitsForNodes = "With `wait` the answer is 200 with the outcome `completed` as soon as every process has answered, and says in " +
	"`nodes` what each did. When the wait is over before, it is 202 with the outcome `unknown`, and `unanswered` names the others."

// dropping runs a command that appends a disconnect-requested as its last event,
// to the system, and waits for what the processes did if the caller asked for
// that. They are those of the deployment, or the given ones. A repeat of a command
// finds their answers in history.
func (a *API) dropping(ctx context.Context, system domain.SystemID, in *Waits, command func() (domain.Receipt, error), nodes ...string,
) (*droppedOutput, error) {
	patience, err := in.duration()
	if err != nil {
		return nil, err
	}
	waits := patience > 0 && a.outcomes != nil
	d := dropped{expected: nodes, named: len(nodes) > 0}
	if waits && !d.named { // before the command is taken: who begins later does not hear it
		if d.live, d.expected, err = a.expected(ctx, time.Time{}); err != nil {
			return nil, unavailable(err)
		}
	}
	receipt, err := command()
	if err != nil {
		return nil, err
	}
	out := &droppedOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer = answer(receipt)
	if !waits || receipt.Unchanged {
		return out, nil
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if receipt.Replayed && !d.named {
		taken := receipt.Position.Time()
		if d.live, d.expected, err = a.expected(waiting, taken); err != nil {
			a.noOutcome(ctx, err)
		}
	}
	if err == nil {
		d.commandID = receipt.CommandID
		err = a.follow(waiting, system, receipt.Position, d.take)
	}
	if err != nil {
		a.excuse(ctx, &d)
	}
	out.Body.Nodes, out.Body.Unanswered = d.reports, d.unanswered()
	out.Body.Outcome = domain.OutcomeUnknown
	if d.complete() {
		out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	}
	return out, nil
}

// expected names the processes that are to answer, and which of them live.
func (a *API) expected(ctx context.Context, asOf time.Time) (live, all []string, err error) {
	live, missing, err := a.nodes.Expected(ctx, asOf)
	return live, slices.Concat(live, missing), err
}

// excuse takes out of a report that is not complete who left in order since the
// command was taken: nothing of it is open, and it will never answer.
func (a *API) excuse(ctx context.Context, d *dropped) {
	if len(d.live) == 0 {
		return
	}
	_, still, err := a.expected(ctx, time.Time{})
	if err != nil {
		a.noOutcome(ctx, err)
		return
	}
	d.expected = slices.DeleteFunc(d.expected, func(node string) bool {
		return slices.Contains(d.live, node) && !slices.Contains(still, node) && !d.answered(node)
	})
}

// dropped gathers what processes report of one command.
type dropped struct {
	commandID string
	expected  []string // processes that are to answer
	live      []string // those of them that lived when the command was taken
	named     bool     // the command is for the expected ones alone
	reports   []NodeReport
}

// take looks at an event after the command, and says when all have answered.
func (d *dropped) take(e *domain.Event) (done bool) {
	// Another deployment's processes may have the names of ours.
	if e.Type != domain.TypeDisconnectCompleted || e.CausationID != d.commandID || e.Origin != "" {
		return false
	}
	data, err := e.Decode()
	c, ok := data.(domain.DisconnectCompleted)
	if err != nil || !ok || c.CommandID != d.commandID || d.answered(c.Node) {
		return false
	}
	if d.named && !slices.Contains(d.expected, c.Node) && c.ShellySockets+c.BrowserSockets == 0 {
		return false
	}
	d.reports = append(d.reports, NodeReport{Node: c.Node, ShellySockets: c.ShellySockets, BrowserSockets: c.BrowserSockets})
	slices.SortFunc(d.reports, func(a, b NodeReport) int { return strings.Compare(a.Node, b.Node) })
	return len(d.expected) > 0 && d.complete()
}

// complete reports whether all have answered. Of a repeat nobody may be expected
// any more, because all who ran then have been started anew: then whoever
// answered in time must do.
func (d *dropped) complete() bool { return len(d.reports) > 0 && len(d.unanswered()) == 0 }

func (d *dropped) answered(node string) bool {
	return slices.ContainsFunc(d.reports, func(r NodeReport) bool { return r.Node == node })
}

// unanswered names, in order, who is expected and did not answer.
func (d *dropped) unanswered() (names []string) {
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
	Error string `json:"error,omitempty" doc:"Why the outcome is not completed, in words"`
}

type switchedOutput struct {
	Status int
	Replay
	Body SwitchAnswer
}

// switched waits for how a relay command ended, if the caller asked for that.
func (a *API) switched(ctx context.Context, system domain.SystemID, in *Waits, receipt domain.Receipt) *switchedOutput {
	out := &switchedOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer = answer(receipt)
	patience := in.waiting() // checked before the command was taken
	if patience == 0 || a.outcomes == nil {
		return out
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
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

// follow waits for an outcome. An error says that there is none to be had: the
// command is taken all the same, so the caller is told that much and not of the
// error.
func (a *API) follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(*domain.Event) bool) error {
	err := a.outcomes.Follow(ctx, system, after, fn)
	if err != nil && ctx.Err() == nil {
		a.noOutcome(ctx, err)
	}
	return err
}

func (a *API) noOutcome(ctx context.Context, err error) {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		a.log.WarnContext(ctx, "an outcome cannot be found", "requestId", requestID(ctx), "error", err)
	}
}
