package domain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
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

// AssignPlug ties a plug to equipment. Errors: as [AssignPlug.Decide].
func (s *Service) AssignPlug(ctx context.Context, system SystemID, c AssignPlug, r Request) (Receipt, error) {
	return s.command(ctx, system, ActionCommand, r, AggregateInventory, func(st *State, _ string) ([]Data, error) { return c.Decide(st) })
}

// ReleasePlug ends a plug's assignment. Errors: as [ReleasePlug.Decide].
func (s *Service) ReleasePlug(ctx context.Context, system SystemID, c ReleasePlug, r Request) (Receipt, error) {
	return s.command(ctx, system, ActionCommand, r, AggregateInventory, func(st *State, _ string) ([]Data, error) { return c.Decide(st) })
}

// RegisterEquipment adds equipment. Errors: as [RegisterEquipment.Decide], and
// [CodeInvalidCommand] or [CodeInvalidEquipmentID] for bad content.
func (s *Service) RegisterEquipment(ctx context.Context, system SystemID, c RegisterEquipment, r Request) (Receipt, error) {
	if err := checkEquipment(c.EquipmentID, Some(c.Name), Some(c.Kind), Some(c.Location), c.Attributes); err != nil {
		return Receipt{}, err
	}
	return s.command(ctx, system, ActionCommand, r, AggregateInventory, func(st *State, _ string) ([]Data, error) { return c.Decide(st) })
}

// UpdateEquipment changes equipment. Errors: as [UpdateEquipment.Decide], and as
// RegisterEquipment for bad content.
func (s *Service) UpdateEquipment(ctx context.Context, system SystemID, c UpdateEquipment, r Request) (Receipt, error) {
	if err := checkEquipment(c.EquipmentID, c.Name, c.Kind, c.Location, c.Attributes); err != nil {
		return Receipt{}, err
	}
	return s.command(ctx, system, ActionCommand, r, AggregateInventory, func(st *State, _ string) ([]Data, error) { return c.Decide(st) })
}

// RetireEquipment takes equipment out of use. Errors: as
// [RetireEquipment.Decide].
func (s *Service) RetireEquipment(ctx context.Context, system SystemID, c RetireEquipment, r Request) (Receipt, error) {
	return s.command(ctx, system, ActionCommand, r, AggregateInventory, func(st *State, _ string) ([]Data, error) { return c.Decide(st) })
}

// CreateConnection adds a credential. Errors: as [CreateConnection.Decide], and
// [CodeInvalidCommand] or [CodeInvalidConnectionID] for bad content.
func (s *Service) CreateConnection(ctx context.Context, system SystemID, c CreateConnection, r Request) (Receipt, error) {
	if err := checkConnection(c.ConnectionID, c.Name); err != nil {
		return Receipt{}, err
	}
	if c.Kind != ConnectionShellyCloud && c.Kind != ConnectionShellyOutbound {
		return Receipt{}, Invalid(CodeInvalidCommand, "a connection is of kind "+string(ConnectionShellyCloud)+" or "+
			string(ConnectionShellyOutbound)+", not "+quote(string(c.Kind)))
	}
	return s.command(ctx, system, ActionAdminister, r, AggregateConnection(c.ConnectionID),
		func(st *State, _ string) ([]Data, error) { return c.Decide(st) })
}

// UpdateConnection changes a connection. Errors: as [UpdateConnection.Decide],
// and [CodeInvalidCommand] or [CodeInvalidConnectionID] for bad content.
func (s *Service) UpdateConnection(ctx context.Context, system SystemID, c UpdateConnection, r Request) (Receipt, error) {
	name, _ := c.Name.Get()
	if err := checkConnection(c.ConnectionID, name); err != nil {
		return Receipt{}, err
	}
	return s.command(ctx, system, ActionAdminister, r, AggregateConnection(c.ConnectionID), func(st *State, commandID string) ([]Data, error) {
		c.CommandID = commandID
		return c.Decide(st)
	})
}

// CommandConnection starts, stops, restarts or deletes a connection. Errors: as
// [CommandConnection.Decide].
func (s *Service) CommandConnection(ctx context.Context, system SystemID, c CommandConnection, r Request) (Receipt, error) {
	action := ActionCommand
	if c.Verb == VerbDelete {
		action = ActionAdminister
	}
	return s.command(ctx, system, action, r, AggregateConnection(c.ConnectionID), func(st *State, commandID string) ([]Data, error) {
		c.CommandID = commandID
		return c.Decide(st)
	})
}

// MaxToggleAfter bounds how long a relay may wait to switch back.
const MaxToggleAfter = 24 * time.Hour

// SwitchRelay asks for a relay to be switched. Errors: as [SwitchRelay.Decide],
// and [CodeInvalidCommand] for a ToggleAfter out of bounds.
func (s *Service) SwitchRelay(ctx context.Context, system SystemID, c SwitchRelay, r Request) (Receipt, error) {
	if c.ToggleAfter < 0 || c.ToggleAfter > MaxToggleAfter {
		return Receipt{}, Invalid(CodeInvalidCommand, fmt.Sprintf("toggleAfter must be 0 to %v", MaxToggleAfter))
	}
	return s.command(ctx, system, ActionCommand, r, "", func(st *State, commandID string) ([]Data, error) {
		c.CommandID = commandID
		return c.Decide(st)
	})
}

// MaxBan bounds how long the return of who was thrown out may be refused.
const MaxBan = 24 * time.Hour

// Disconnect asks every process to drop the sockets that match. The request is
// written to the log of the target system, or of [PlatformSystem] when it names
// none, which only staff may. Errors: [CodeInvalidCommand] for one that names
// nobody.
func (s *Service) Disconnect(ctx context.Context, d DisconnectRequested, r Request) (Receipt, error) {
	system := d.TargetSystem
	if system == "" {
		system = PlatformSystem
	}
	if d.TargetSystem == "" && d.SocketID == "" && d.Subject == "" && d.Role == "" {
		return Receipt{}, Invalid(CodeInvalidCommand, "name a system, a socket, a subject or a role, or everybody would be thrown out")
	}
	return s.command(ctx, system, ActionAdminister, r, "", func(_ *State, commandID string) ([]Data, error) {
		d.CommandID = commandID
		return []Data{d}, nil
	})
}

// expect makes the condition of a command: nothing was appended to the aggregate
// that the deciding state has not seen. A state has seen all up to its cursor.
func (a Aggregate) expect(s *State) *Expectation {
	if a == "" {
		return nil
	}
	return &Expectation{Aggregate: a, Head: s.Cursor.Position}
}

// command runs the loop that every command shares. An empty aggregate is for
// commands that cannot conflict.
//
// The state that it decides on may lag behind the log. An append tells when that
// matters; a refusal, or "it is so already", appends nothing, so those are
// believed only from a state that has all that was in the log when they came up.
// Otherwise a plug that was published a moment ago would be unknown.
func (s *Service) command(ctx context.Context, system SystemID, action Action, r Request, about Aggregate,
	decide func(st *State, commandID string) ([]Data, error),
) (Receipt, error) {
	if err := r.Actor.Authorize(action, system); err != nil {
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
		st, err := s.states.State(ctx, system, seen)
		if err != nil {
			return Receipt{}, fmt.Errorf("domain: load state of %s: %w", system, err)
		}
		decided, err := decide(st, receipt.CommandID)
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
		opts.Expect = about.expect(st)
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
	return &Idempotency{Scope: r.Actor.Subject, Key: r.IdempotencyKey, Fingerprint: r.Fingerprint}
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

func checkConnection(id ConnectionID, name string) error {
	if len(name) > maxText {
		return Invalid(CodeInvalidCommand, fmt.Sprintf("name is limited to %d bytes", maxText))
	}
	_, err := ParseConnectionID(string(id))
	return err
}

func checkEquipment(id EquipmentID, name, kind, location Optional[string], attributes []byte) error {
	if _, err := ParseEquipmentID(string(id)); err != nil {
		return err
	}
	for field, text := range map[string]Optional[string]{"name": name, "kind": kind, "location": location} {
		if v, _ := text.Get(); len(v) > maxText {
			return Invalid(CodeInvalidCommand, fmt.Sprintf("%s is limited to %d bytes", field, maxText))
		}
	}
	if v, present := name.Get(); !name.IsZero() && (!present || v == "") {
		return Invalid(CodeInvalidCommand, "name must not be empty")
	}
	return requireObject(attributes, CodeInvalidCommand, maxAttributes)
}
