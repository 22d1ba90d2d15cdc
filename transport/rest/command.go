package rest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/plugcast/plugcast/domain"
)

// maxWait is the longest time that a caller may wait for the outcome of a command.
const maxWait = 30 * time.Second

// Idempotent is part of the input of every operation that appends.
type Idempotent struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Within 24 hours, a repeat does nothing and gets the same answer" example:"5f3a…"`
}

// request returns the request that goes with a command. content identifies the
// command: the domain refuses another content under the same key.
func (in *Idempotent) request(ctx context.Context, content ...any) (domain.Request, error) {
	r := domain.Request{Actor: actorOf(ctx), CorrelationID: requestID(ctx), IdempotencyKey: in.IdempotencyKey}
	if in.IdempotencyKey == "" {
		return r, nil
	}
	if err := in.check(); err != nil {
		return r, err
	}
	text, err := json.Marshal(content)
	if err != nil {
		return r, fmt.Errorf("rest: fingerprint of a request: %w", err)
	}
	r.Fingerprint = fingerprint(text)
	return r, nil
}

func (in *Idempotent) check() error {
	const maxLength = 255
	for _, c := range []byte(in.IdempotencyKey) {
		if c <= ' ' || c > '~' {
			return invalidRequest("Idempotency-Key may have only visible ASCII characters")
		}
	}
	if len(in.IdempotencyKey) > maxLength {
		return invalidRequest("Idempotency-Key is limited to %d characters", maxLength)
	}
	return nil
}

func fingerprint(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// idOrNew returns the given id, or a new one if it is "". With an Idempotency-Key it
// derives the new id from the key, so that a repeat gets the same id.
func idOrNew[T ~string](ctx context.Context, in *Idempotent, system domain.SystemID, given T) (T, error) {
	if given != "" {
		return given, nil
	}
	if in.IdempotencyKey != "" {
		return T("key-" + fingerprint([]byte(string(system)+"\x00"+actorOf(ctx).Subject+"\x00"+in.IdempotencyKey))), nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("rest: new id: %w", err)
	}
	return T(id.String()), nil
}

// WaitParam is part of the input of commands that can wait for their outcome.
type WaitParam struct {
	Wait string `query:"wait" doc:"Wait for the outcome" pattern:"^0$|^[0-9].*[smh]$" patternDescription:"duration up to 30s" example:"5s"`
}

func (in *WaitParam) duration() (time.Duration, error) {
	if in.Wait == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(in.Wait)
	if err != nil || d < 0 || d > maxWait {
		return 0, invalidRequest("wait must be a duration from 0s to %v, such as 5s", maxWait)
	}
	return d, nil
}

// waiting returns the time by which register extends the operation's timeout.
func (in *WaitParam) waiting() time.Duration {
	d, _ := in.duration()
	return d
}

// CommandInput is part of the input of commands that can wait.
type CommandInput struct {
	Idempotent
	WaitParam
}

// request checks all of the input, and returns the request that goes with a command.
func (in *CommandInput) request(ctx context.Context, content ...any) (domain.Request, error) {
	if _, err := in.duration(); err != nil {
		return domain.Request{}, err
	}
	return in.Idempotent.request(ctx, content...)
}

// execute runs a command of the named operation in a system.
func (a *API) execute(ctx context.Context, operation string, system domain.SystemID, c domain.Command, in *CommandInput,
) (domain.Receipt, error) {
	r, err := in.request(ctx, operation, system, c)
	if err != nil {
		return domain.Receipt{}, err
	}
	return a.service.Execute(ctx, system, c, r)
}

// CommandAnswer is the answer to a command.
type CommandAnswer struct {
	CommandID string          `json:"commandId" doc:"The causationId of the events that the command appended"`
	Position  domain.Position `json:"position" doc:"The position of the last event; use it as after-position in a read"`
	Unchanged bool            `json:"unchanged,omitempty" doc:"The state was already as requested; nothing was appended"`
	Outcome   domain.Outcome  `json:"outcome,omitempty" enum:"completed,failed,unknown" doc:"Only with wait"`
}

func commandAnswer(r domain.Receipt) CommandAnswer {
	return CommandAnswer{CommandID: r.CommandID, Position: r.Position, Unchanged: r.Unchanged}
}

// Replay is part of the output of every operation that takes an Idempotency-Key.
type Replay struct {
	Replayed string `header:"Idempotency-Replayed" doc:"true if the request is a repeat, so that nothing was done now"`
}

func replayOf(replayed bool) Replay {
	if replayed {
		return Replay{Replayed: "true"}
	}
	return Replay{}
}

// stateAfter waits until the read model has the events of a command, and returns the
// part of the state that the answer shows. It returns nil if the caller did not ask to
// wait, or if the read model takes longer than that; the command is accepted in any
// case.
func (a *API) stateAfter(
	ctx context.Context, system domain.SystemID, needs domain.Needs, r domain.Receipt, in *WaitParam,
) (st *domain.State, err error) {
	timeout, err := in.duration()
	if err != nil || timeout == 0 {
		return nil, err
	}
	err = awaitProjection(ctx, r.Position, timeout, func(ctx context.Context) error {
		st, err = a.reads.StateFor(ctx, actorOf(ctx), system, needs, r.Position)
		return err
	})
	if domain.HasCode(err, CodeProjectionBehind) {
		return nil, nil
	}
	return st, err
}
