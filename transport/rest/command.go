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

// maxWait bounds how long a command's answer may wait for its outcome.
const maxWait = 30 * time.Second

// Keyed is part of the input of everything that appends.
type Keyed struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"1 to 255 visible ASCII characters. The same request under the same key is done once and answered alike for 24 hours" example:"5f3a…"`
}

// request is what the domain wants to know besides the command. same is whatever
// makes this request another one under the same key.
func (in *Keyed) request(ctx context.Context, same ...any) (domain.Request, error) {
	r := domain.Request{Actor: actorOf(ctx), CorrelationID: requestID(ctx), IdempotencyKey: in.IdempotencyKey}
	if in.IdempotencyKey == "" {
		return r, nil
	}
	if err := in.check(); err != nil {
		return r, err
	}
	text, err := json.Marshal(same)
	if err != nil {
		return r, fmt.Errorf("rest: fingerprint of a request: %w", err)
	}
	r.Fingerprint = fingerprint(text)
	return r, nil
}

func (in *Keyed) check() error {
	const most = 255
	for _, c := range []byte(in.IdempotencyKey) {
		if c <= ' ' || c > '~' {
			return invalidRequest("Idempotency-Key takes visible ASCII characters only")
		}
	}
	if len(in.IdempotencyKey) > most {
		return invalidRequest("Idempotency-Key is limited to %d characters", most)
	}
	return nil
}

func fingerprint(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// newID makes the id of something that the caller did not name. Under a key it
// follows from the key, so that a repeat means the same thing.
func (in *Keyed) newID(ctx context.Context, system domain.SystemID) (string, error) {
	if in.IdempotencyKey != "" {
		return "key-" + fingerprint([]byte(string(system)+"\x00"+actorOf(ctx).Subject+"\x00"+in.IdempotencyKey)), nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("rest: new id: %w", err)
	}
	return id.String(), nil
}

// Waits is part of the input of commands whose outcome is that the read model
// has it.
type Waits struct {
	Wait string `query:"wait" doc:"Wait for the outcome, at most 30s" pattern:"^(0|([0-9]+([.][0-9]+)?(ns|us|µs|ms|s|m|h))+)$" patternDescription:"a duration such as 5s" example:"5s"`
}

func (in *Waits) duration() (time.Duration, error) {
	if in.Wait == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(in.Wait)
	if err != nil || d < 0 || d > maxWait {
		return 0, invalidRequest("wait must be a duration from 0s to %v, such as 5s", maxWait)
	}
	return d, nil
}

// waiting lets register give the operation the time that it waits.
func (in *Waits) waiting() time.Duration {
	d, _ := in.duration()
	return d
}

// CommandInput is part of the input of commands that can wait.
type CommandInput struct {
	Keyed
	Waits
}

// request checks all of the input before anything is done.
func (in *CommandInput) request(ctx context.Context, same ...any) (domain.Request, error) {
	if _, err := in.duration(); err != nil {
		return domain.Request{}, err
	}
	return in.Keyed.request(ctx, same...)
}

// CommandAnswer is the answer to a command.
type CommandAnswer struct {
	CommandID string          `json:"commandId" doc:"The causationId of the events that the command appended"`
	Position  domain.Position `json:"position" doc:"Of the last of them; use it as after-position in a read"`
	Unchanged bool            `json:"unchanged,omitempty" doc:"Things were already as asked; nothing was appended"`
	Outcome   domain.Outcome  `json:"outcome,omitempty" enum:"completed,failed,unknown" doc:"Only when the answer waited for it"`
}

func answer(r domain.Receipt) CommandAnswer {
	return CommandAnswer{CommandID: r.CommandID, Position: r.Position, Unchanged: r.Unchanged}
}

// Replay is part of the output of everything that takes an Idempotency-Key.
type Replay struct {
	Replayed string `header:"Idempotency-Replayed" doc:"true when the key was known and nothing was done now"`
}

func replayOf(replayed bool) Replay {
	if replayed {
		return Replay{Replayed: "true"}
	}
	return Replay{}
}

// settled waits until the read model has what a command did, if the caller asked
// for that, and returns the part of the state that the answer shows. Without, or
// when it takes longer than the caller would wait, the state is nil: the command
// is taken all the same.
func (a *API) settled(
	ctx context.Context, system domain.SystemID, shows domain.Needs, r domain.Receipt, in *Waits,
) (st *domain.State, err error) {
	patience, err := in.duration()
	if err != nil || patience == 0 {
		return nil, err
	}
	err = patiently(ctx, r.Position, patience, func(ctx context.Context) error {
		st, err = a.reads.StateFor(ctx, actorOf(ctx), system, shows, r.Position)
		return err
	})
	if domain.HasCode(err, CodeProjectionBehind) {
		return nil, nil
	}
	return st, err
}
