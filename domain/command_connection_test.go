package domain

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// connected returns a service in which clinica-sol has the connection acc1, under which devices dial in.
func connected(t *testing.T) (*memory, *Service) {
	t.Helper()
	m := newMemory()
	s := newTestService(m)
	create := CreateConnection{ConnectionCreated{ConnectionID: "acc1", Kind: ConnectionShellyOutbound, Name: "ground floor"}}
	if _, err := s.Execute(t.Context(), "clinica-sol", create, admin); err != nil {
		t.Fatal(err)
	}
	return m, s
}

func TestUpdateConnection(t *testing.T) {
	t.Parallel()
	m, s := connected(t)
	update := func(c ConnectionUpdated, kind ConnectionKind, match *Position) (Receipt, error) {
		c.ConnectionID = "acc1"
		return s.Execute(t.Context(), "clinica-sol", UpdateConnection{ConnectionUpdated: c, CredentialKind: kind, IfMatch: match}, admin)
	}
	if r, err := update(ConnectionUpdated{Name: Some("ground floor")}, "", nil); err != nil || !r.Unchanged {
		t.Errorf("the same name: %+v, %v", r, err)
	}
	first := m.events[0].Position
	renamed, err := update(ConnectionUpdated{Name: Some("cellar")}, "", &first)
	if err != nil || len(m.events) != 2 || renamed.Position != m.events[1].Position {
		t.Fatalf("%+v, %v, %d events", renamed, err, len(m.events))
	}
	if _, err := update(ConnectionUpdated{Name: Some("attic")}, "", &first); !HasCode(err, CodeStale) {
		t.Errorf("an old position: %v", err)
	}
	if _, err := update(ConnectionUpdated{Credential: true}, ConnectionShellyCloud, nil); !HasCode(err, CodeInvalidCommand) {
		t.Errorf("a credential of another kind: %v", err)
	}
	if _, err := update(ConnectionUpdated{Name: Some(string(make([]byte, maxText+1)))}, "", nil); !HasCode(err, CodeInvalidCommand) {
		t.Errorf("a long name: %v", err)
	}
	rotated, err := update(ConnectionUpdated{Credential: true}, ConnectionShellyOutbound, nil)
	if err != nil || len(m.events) != 4 {
		t.Fatalf("%v, %d events", err, len(m.events))
	}
	changed, _ := m.events[2].Decode()
	if got := changed.(ConnectionUpdated); !got.Credential || got.CommandID != rotated.CommandID || !got.Name.IsZero() {
		t.Errorf("%+v", got)
	}
	dropped, _ := m.events[3].Decode()
	want := DisconnectRequested{
		CommandID: rotated.CommandID, ConnectionID: "acc1", TargetSystem: "clinica-sol", Reason: "credential replaced", Reconnect: true,
	}
	if dropped != want {
		t.Errorf("%+v", dropped)
	}
	st, _ := m.whole("clinica-sol", Position{})
	if got := st.Connections["acc1"]; got.Name != "cellar" || got.Position != m.events[2].Position {
		t.Errorf("%+v", got)
	}
}

func TestConnectionCommandErrors(t *testing.T) {
	t.Parallel()
	m, s := connected(t)
	old := Position{Ms: 999}
	create := func(id ConnectionID, kind ConnectionKind) error {
		_, err := s.Execute(t.Context(), "clinica-sol", CreateConnection{ConnectionCreated{ConnectionID: id, Kind: kind}}, admin)
		return err
	}
	remove := func(id ConnectionID, match *Position, r Request) error {
		_, err := s.Execute(t.Context(), "clinica-sol",
			ControlConnection{ConnectionCommand: ConnectionCommand{ConnectionID: id}, Verb: VerbDelete, IfMatch: match}, r)
		return err
	}
	operator := Request{Actor: Actor{Subject: "o", Role: RoleOperator, Systems: []SystemID{"clinica-sol"}}}
	update := UpdateConnection{ConnectionUpdated: ConnectionUpdated{ConnectionID: "acc1"}}
	_, forbidden := s.Execute(t.Context(), "clinica-sol", update, operator)
	for name, c := range map[string]struct {
		code Code
		err  error
	}{
		"there already":    {CodeConnectionExists, create("acc1", ConnectionShellyOutbound)},
		"a bad kind":       {CodeInvalidCommand, create("acc2", "zigbee")},
		"no kind":          {CodeInvalidCommand, create("acc2", "")},
		"a bad id":         {CodeInvalidConnectionID, create("a/b", ConnectionShellyOutbound)},
		"not there":        {CodeUnknownConnection, remove("acc2", nil, admin)},
		"stale":            {CodeStale, remove("acc1", &old, admin)},
		"delete, operator": {CodeForbidden, remove("acc1", nil, operator)},
		"update, operator": {CodeForbidden, forbidden},
	} {
		if !HasCode(c.err, c.code) {
			t.Errorf("%s: want %s, got %v", name, c.code, c.err)
		}
	}
	if len(m.events) != 1 {
		t.Errorf("%d events", len(m.events))
	}
}

// BeforeAppend runs right before an append, after a decision on a state that is not stale, and at no other time.
func TestBeforeAppend(t *testing.T) {
	t.Parallel()
	m, s := connected(t)
	m.stale = func(int) int { return 0 }
	var calls int
	r := admin
	r.IdempotencyKey = "k"
	r.BeforeAppend = func(context.Context) error { calls++; return nil }
	rename := UpdateConnection{ConnectionUpdated: ConnectionUpdated{ConnectionID: "acc1", Name: Some("cellar")}}
	create := CreateConnection{ConnectionCreated{ConnectionID: "acc1", Kind: ConnectionShellyOutbound}}
	if _, err := s.Execute(t.Context(), "clinica-sol", create, r); !HasCode(err, CodeConnectionExists) || calls != 0 {
		t.Errorf("refused: %v, %d calls", err, calls)
	}
	first, err := s.Execute(t.Context(), "clinica-sol", rename, r)
	if err != nil || calls != 1 {
		t.Errorf("done: %v, %d calls", err, calls)
	}
	if again, err := s.Execute(t.Context(), "clinica-sol", rename, r); err != nil || !again.Replayed || calls != 1 {
		t.Errorf("repeated: %+v, %v, %d calls", again, err, calls)
	}
	no := errors.New("no")
	r.IdempotencyKey = ""
	r.BeforeAppend = func(context.Context) error { return no }
	rename.Name = Some("attic")
	if _, err := s.Execute(t.Context(), "clinica-sol", rename, r); !errors.Is(err, no) || len(m.events) != 2 {
		t.Errorf("refused by BeforeAppend: %v, %d events", err, len(m.events))
	}
	// The same request runs twice at once. The second one is a repeat, although its BeforeAppend fails because of the
	// first one's effects.
	r.IdempotencyKey = "k2"
	r.BeforeAppend = func(ctx context.Context) error {
		twin := r
		twin.BeforeAppend = nil
		first, err = s.Execute(ctx, "clinica-sol", rename, twin)
		return errors.Join(no, err)
	}
	second, err := s.Execute(t.Context(), "clinica-sol", rename, r)
	if err != nil || !second.Replayed || second.Position != first.Position || second.CommandID != first.CommandID {
		t.Errorf("%+v after %+v, %v", second, first, err)
	}
}

// BeforeAppend runs again if a conflict makes the service decide again.
func TestBeforeAppendRunsAgainOnConflict(t *testing.T) {
	t.Parallel()
	m, s := connected(t)
	var seen []int
	r := admin
	r.BeforeAppend = func(ctx context.Context) error {
		seen = append(seen, len(m.events))
		if len(seen) > 1 {
			return nil
		}
		_, err := s.Execute(ctx, "clinica-sol",
			ControlConnection{ConnectionCommand: ConnectionCommand{ConnectionID: "acc1"}, Verb: VerbRestart}, admin)
		return err
	}
	if _, err := s.Execute(t.Context(), "clinica-sol",
		UpdateConnection{ConnectionUpdated: ConnectionUpdated{ConnectionID: "acc1", Name: Some("cellar")}}, r); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, []int{1, 3}) || len(m.events) != 4 {
		t.Errorf("called at %v of %d events", seen, len(m.events))
	}
}
