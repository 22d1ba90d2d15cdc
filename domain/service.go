package domain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
)

// Service takes commands: it loads the state, decides, and appends what follows
// on the condition that nothing newer was appended meanwhile. It is safe for
// concurrent use and holds no state of its own.
type Service struct {
	log    Log
	states States
	newID  func() string
}

// NewService makes a Service. newID gives a new unique id for each command.
func NewService(log Log, states States, newID func() string) *Service {
	return &Service{log: log, states: states, newID: newID}
}

// Request is what comes with every command besides its content.
type Request struct {
	Actor         Actor
	CorrelationID string // of the caller's; the command's own id when empty
	// IdempotencyKey makes the command repeatable: the same key from the same
	// actor gives the first answer again. Fingerprint tells a repeat from
	// another request under the same key.
	IdempotencyKey string
	Fingerprint    string
	// Before, if set, is called when the command is decided, right before its
	// events are appended, and again when it has to be decided anew. So it runs
	// only for what is about to happen, and not for a repeat. Its error ends the
	// command. The command is then decided on a state that has all that was in the
	// log when it came.
	Before func(context.Context) error
}

// Receipt says that a command was taken.
type Receipt struct {
	CommandID string
	Position  Position // of the last event it appended, or of the state that was already as asked
	Unchanged bool     // things were already as asked; nothing was appended
	Replayed  bool     // answered from an earlier run under the same key
}

// attempts bounds how often a command is decided anew because others were
// faster. Each try sees the state that beat the one before.
const attempts = 16

// expect makes the condition of a command: nothing was appended to the aggregate
// that the deciding state has not seen. A state has seen all up to its cursor.
func (a Aggregate) expect(s *State) *Expectation {
	if a == "" {
		return nil
	}
	return &Expectation{Aggregate: a, Head: s.Cursor.Position}
}

// Execute runs a command in a system. It authorises the actor, loads the part of
// the state that the decision needs, and appends what follows on the condition
// that nothing newer was appended under the same aggregate; otherwise it decides
// again. Errors: [CodeForbidden], those of the command's Validate and Decide,
// those of the log, and [CodeContention].
//
// The state that it decides on may lag behind the log. An append tells when that
// matters; a refusal, or "it is so already", appends nothing, so those are
// believed only from a state that has all that was in the log when they came up.
// Otherwise a plug that was published a moment ago would be unknown.
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
	if r.Before != nil {
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
		if done, err := s.before(ctx, system, r, &receipt); done || err != nil {
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
	return Receipt{}, Fail(KindUnavailable, CodeContention, "too many commands on the same thing at once; repeat in a moment")
}

// before calls the request's Before. When that fails because the same request
// runs twice at once and the other one was faster, the command is done.
func (s *Service) before(ctx context.Context, system SystemID, r Request, receipt *Receipt) (done bool, err error) {
	if r.Before == nil {
		return false, nil
	}
	if err := r.Before(ctx); err != nil {
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

// commandID is the same for repeats under one key, so that the answer is too.
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
	return &Idempotency{Scope: r.Actor.Subject, Key: r.IdempotencyKey, Fingerprint: r.Fingerprint, Counted: true}
}

// Published is the answer to a batch of device updates.
type Published struct {
	Accepted  int
	Positions map[SystemID]Span
	Replayed  bool
}

// Span is the first and the last position of a system's events in one batch.
type Span struct {
	First Position `json:"first"`
	Last  Position `json:"last"`
}

// Publish appends device updates as given, each one, in order. One bad or
// foreign update rejects the whole batch, with its index, before anything is
// appended.
func (s *Service) Publish(ctx context.Context, updates []SystemUpdate, r Request) (Published, error) {
	if len(updates) > MaxUpdates {
		return Published{}, Fail(KindTooLarge, CodeBatchTooLarge, fmt.Sprintf("a batch holds at most %d updates", MaxUpdates))
	}
	events := make([]Event, len(updates))
	cause := Cause{Actor: r.Actor.Subject, CorrelationID: r.CorrelationID}
	if cause.CorrelationID == "" {
		cause.CorrelationID = s.newID()
	}
	for i := range updates {
		u := &updates[i]
		err := u.Validate()
		if err == nil {
			err = r.Actor.Authorize(ActionPublish, u.SystemID)
		}
		if err == nil {
			events[i], err = NewEvent(u.SystemID, u.DeviceUpdate, cause)
		}
		if err != nil {
			return Published{}, AtIndex(err, i)
		}
	}
	appended, err := s.log.Append(ctx, events, AppendOptions{Idempotency: r.idempotency()})
	if err != nil {
		return Published{}, err
	}
	return published(events, appended), nil
}

// AtIndex says which item of a batch an error is about.
func AtIndex(err error, index int) error {
	e := *AsError(err)
	e.Detail = fmt.Sprintf("item %d: %s", index, e.Detail)
	e.Params = maps.Clone(e.Params) // err keeps its own
	return (&e).With("index", index)
}

func published(events []Event, appended Appended) Published {
	p := Published{Accepted: len(events), Positions: map[SystemID]Span{}, Replayed: appended.Replayed}
	for i := range events {
		at := appended.Positions[i]
		span, known := p.Positions[events[i].SystemID]
		if !known {
			span.First = at
		}
		span.Last = at
		p.Positions[events[i].SystemID] = span
	}
	return p
}
