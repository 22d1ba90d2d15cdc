package domain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Service runs commands: it loads the state, decides, and appends the resulting events on the condition that nobody
// appended to the same aggregate in between. It is safe for concurrent use and keeps no state of its own.
type Service struct {
	log    Log
	states StateReader
	quota  DeviceQuota
	newID  func() string
}

// NewService returns a new Service. A nil quota admits every device. newID must return a new unique id for each call and
// be safe for concurrent use.
func NewService(log Log, states StateReader, quota DeviceQuota, newID func() string) *Service {
	return &Service{log: log, states: states, quota: quota, newID: newID}
}

// StateReader gives decisions the state that they need. It must be safe for concurrent use.
type StateReader interface {
	// State returns the part of the system's state that needs selects, as of one moment at or after the position
	// atLeast; it waits for that position until ctx ends. The state's Cursor is the system's. Rows that needs does not
	// select may be missing. The caller owns the result. A system without events has the empty state.
	State(ctx context.Context, system SystemID, needs Needs, atLeast Position) (*State, error)
}

// Request contains everything about a command but its content.
type Request struct {
	Actor         Actor
	CorrelationID string // the caller's own id for the events; the command's id if empty
	// IdempotencyKey makes the command repeatable: if the same actor repeats the key, the service returns the result of
	// the first run. Fingerprint distinguishes a repeat from a different request under the same key.
	IdempotencyKey string
	Fingerprint    string
	// BeforeAppend, if not nil, runs after the decision and right before the append, and again if a conflict makes the
	// service decide again. It does not run for a repeat, nor if the command fails or changes nothing. Its error ends
	// the command. Setting it also makes the service decide on a state that contains everything that was in the log
	// when the command arrived.
	BeforeAppend func(context.Context) error
}

// Receipt is the result of a command that succeeded.
type Receipt struct {
	CommandID string
	Position  Position // of the last appended event or, if Unchanged, of the state that was already as requested
	Unchanged bool     // everything was already as requested; nothing was appended
	Replayed  bool     // the result of an earlier run under the same key
}

// attempts limits how often Execute decides a command before it gives up because other commands keep appending first. Each
// attempt sees the state that made the previous one conflict.
const attempts = 16

// Execute runs a command in a system. It authorizes the actor, loads the part of the state that the decision needs,
// decides, and appends the resulting events on the condition that nobody appended to the same aggregate in between. If
// somebody did, it decides again. Errors: [CodeForbidden], the errors of the command's Validate and Decide, those of
// the log, and [CodeContention] after 16 conflicts.
//
// The state may lag behind the log. An append finds out whether that matters. A refusal, and a decision that everything
// is already as requested, append nothing. Execute therefore trusts them only if the state contains everything that was
// in the log when they came up. Otherwise a plug that was published a moment ago would be unknown.
func (s *Service) Execute(ctx context.Context, system SystemID, c Command, r Request) (Receipt, error) {
	needs := c.Requires()
	if err := r.Actor.Authorize(needs.Action, system); err != nil {
		return Receipt{}, err
	}
	if err := c.Validate(); err != nil {
		return Receipt{}, err
	}
	receipt := Receipt{CommandID: s.commandID(system, r)}
	opts := AppendOptions{Idempotency: r.idempotency()}
	if opts.Idempotency != nil {
		earlier, err := s.log.Recall(ctx, system, *opts.Idempotency)
		if err != nil || earlier.Replayed {
			receipt.Position, receipt.Replayed = earlier.Last(), earlier.Replayed
			return receipt, err
		}
	}
	var seen Position
	current := false
	if r.BeforeAppend != nil {
		var err error
		if seen, err = s.log.Newest(ctx, system); err != nil {
			return Receipt{}, fmt.Errorf("domain: find the newest event of %s: %w", system, err)
		}
		current = true
	}
	for range attempts {
		st, err := s.states.State(ctx, system, needs.State, seen)
		if err != nil {
			return Receipt{}, fmt.Errorf("domain: load state of %s: %w", system, err)
		}
		decided, err := c.Decide(st, receipt.CommandID)
		if !current && (err != nil || len(decided) == 0) {
			if seen, err = s.log.Newest(ctx, system); err != nil {
				return Receipt{}, fmt.Errorf("domain: find the newest event of %s: %w", system, err)
			}
			current = true
			continue
		}
		if err != nil {
			return Receipt{}, err
		}
		if len(decided) == 0 {
			receipt.Position, receipt.Unchanged = st.Cursor.Position, true
			return receipt, nil
		}
		if done, err := s.beforeAppend(ctx, system, r, &receipt); done || err != nil {
			return receipt, err
		}
		opts.Expect = needs.Aggregate.expect(st)
		events, err := s.events(system, decided, receipt.CommandID, r)
		if err != nil {
			return Receipt{}, err
		}
		appended, err := s.log.Append(ctx, events, opts)
		var conflict *ConflictError
		if errors.As(err, &conflict) {
			seen = conflict.Head
			continue
		}
		receipt.Position, receipt.Replayed = appended.Last(), appended.Replayed
		return receipt, err
	}
	return Receipt{}, Fail(KindUnavailable, CodeContention, "too many concurrent commands change the same resource; retry in a moment")
}

// beforeAppend calls the request's BeforeAppend. It may fail because the same request runs twice at once and the other
// run was faster. In that case the command is done, and receipt contains the result of the other run.
func (s *Service) beforeAppend(ctx context.Context, system SystemID, r Request, receipt *Receipt) (done bool, err error) {
	if r.BeforeAppend == nil {
		return false, nil
	}
	if err := r.BeforeAppend(ctx); err != nil {
		if key := r.idempotency(); key != nil {
			if earlier, recalled := s.log.Recall(ctx, system, *key); recalled == nil && earlier.Replayed {
				receipt.Position, receipt.Replayed = earlier.Last(), true
				return true, nil
			}
		}
		return false, err
	}
	return false, nil
}

func (s *Service) events(system SystemID, decided []Data, commandID string, r Request) ([]Event, error) {
	cause := Cause{Actor: r.Actor.Subject, CorrelationID: r.CorrelationID, CausationID: commandID}
	if cause.CorrelationID == "" {
		cause.CorrelationID = commandID
	}
	events := make([]Event, len(decided))
	for i, d := range decided {
		var err error
		if events[i], err = NewEvent(system, d, cause); err != nil {
			return nil, err
		}
	}
	return events, nil
}

// commandID returns the same id for repeats under one key, so that they have the same result.
func (s *Service) commandID(system SystemID, r Request) string {
	if r.IdempotencyKey == "" {
		return s.newID()
	}
	sum := sha256.Sum256([]byte(string(system) + "\x00" + r.Actor.Subject + "\x00" + r.IdempotencyKey))
	return "key-" + hex.EncodeToString(sum[:16])
}

func (r Request) idempotency() *Idempotency {
	if r.IdempotencyKey == "" {
		return nil
	}
	return &Idempotency{Scope: r.Actor.Subject, Key: r.IdempotencyKey, Fingerprint: r.Fingerprint, CallerChosen: true}
}
