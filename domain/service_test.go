package domain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// memory is a log and its projection in memory: a naive implementation of the two interfaces that is exact about
// conditions. Its State is stale unless the caller asks for a position, like a projection that lags.
type memory struct {
	mu     sync.Mutex
	events []Event
	heads  map[Aggregate]Position
	keys   map[string]memoryKey
	stale  func(n int) int // how many of n events State contains if the caller asks for no position
}

type memoryKey struct {
	fingerprint string
	positions   []Position
}

func newMemory() *memory {
	return &memory{heads: map[Aggregate]Position{}, keys: map[string]memoryKey{}, stale: func(n int) int { return n }}
}

func (m *memory) Append(_ context.Context, events []Event, opts AppendOptions) (Appended, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := opts.Idempotency; i != nil {
		if known, err := m.recall(*i); err != nil || known.Replayed {
			return known, err
		}
	}
	if x := opts.Expect; x != nil && m.heads[x.Aggregate].After(x.Head) {
		return Appended{}, &ConflictError{Aggregate: x.Aggregate, Expected: x.Head, Head: m.heads[x.Aggregate]}
	}
	var out Appended
	for _, e := range events {
		e.Position = Position{Ms: uint64(len(m.events) + 1)}
		m.events = append(m.events, e)
		out.Positions = append(out.Positions, e.Position)
	}
	if x := opts.Expect; x != nil {
		m.heads[x.Aggregate] = out.Last()
	}
	if i := opts.Idempotency; i != nil {
		m.keys[i.Scope+"/"+i.Key] = memoryKey{i.Fingerprint, out.Positions}
	}
	return out, nil
}

func (m *memory) Recall(_ context.Context, _ SystemID, key Idempotency) (Appended, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.recall(key)
}

func (m *memory) Newest(context.Context, SystemID) (Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Position{Ms: uint64(len(m.events))}, nil
}

func (m *memory) recall(i Idempotency) (Appended, error) {
	known, ok := m.keys[i.Scope+"/"+i.Key]
	switch {
	case !ok:
		return Appended{}, nil
	case known.fingerprint != i.Fingerprint:
		return Appended{}, Invalid(CodeKeyReused, "this key was used for another request")
	default:
		return Appended{Positions: known.positions, Replayed: true}, nil
	}
}

func (m *memory) State(_ context.Context, system SystemID, needs Needs, atLeast Position) (*State, error) {
	whole, err := m.whole(system, atLeast)
	if err != nil {
		return nil, err
	}
	return only(whole, needs), nil
}

// only returns the part of the state that needs selects, so that a command with an incomplete Requires decides wrongly.
func only(whole *State, needs Needs) *State {
	s := NewState(whole.SystemID)
	s.Cursor = whole.Cursor
	assigned := func(device DeviceID) {
		if a := whole.Assignments[device]; a != nil {
			s.Assignments[device] = a
		}
	}
	for _, id := range needs.Devices {
		if d := whole.Devices[id]; d != nil {
			s.Devices[id] = d
			if c := d.ConnectionID; c != nil && whole.Connections[*c] != nil {
				s.Connections[*c] = whole.Connections[*c]
			}
		}
		assigned(id)
	}
	for _, id := range needs.Equipment {
		if e := whole.Equipment[id]; e != nil {
			s.Equipment[id] = e
		}
		if holder, held := whole.Holder(id); held {
			assigned(holder)
		}
	}
	for _, id := range needs.Connections {
		if c := whole.Connections[id]; c != nil {
			s.Connections[id] = c
		}
	}
	return s
}

func (m *memory) whole(system SystemID, atLeast Position) (*State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := max(m.stale(len(m.events)), int(atLeast.Ms))
	s := NewState(system)
	for i := range m.events[:n] {
		if _, err := s.Apply(&m.events[i]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func newTestService(m *memory) *Service {
	var n atomic.Int64
	return NewService(m, m, nil, func() string { return fmt.Sprint("cmd-", n.Add(1)) })
}

var admin = Request{Actor: Actor{Subject: "maria", Role: RoleStaff}}

func prepare(t interface{ Fatal(...any) }, m *memory, s *Service, devices, equipment int) {
	ctx := context.Background()
	for i := range devices {
		u := SystemUpdate{SystemID: "clinica-sol", DeviceUpdate: DeviceUpdate{DeviceID: DeviceID(fmt.Sprint("d", i)), Online: Some(true)}}
		if _, err := s.Publish(ctx, []SystemUpdate{u}, admin); err != nil {
			t.Fatal(err)
		}
	}
	for i := range equipment {
		c := RegisterEquipment{EquipmentRegistered{EquipmentID: EquipmentID(fmt.Sprint("e", i)), Name: "laser"}}
		if _, err := s.Execute(ctx, "clinica-sol", c, admin); err != nil {
			t.Fatal(err)
		}
	}
	m.stale = func(n int) int { return devices + equipment + rand.IntN(n-devices-equipment+1) }
}

// Many callers decide at once, each on a stale state. The log still never contains two assignments that exclude each
// other, and no caller gets equipment that another has.
func TestConcurrentAssignments(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := newTestService(m)
	prepare(t, m, s, 8, 2)
	var won atomic.Int64
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			c := AssignPlug{DeviceID: DeviceID(fmt.Sprint("d", i)), EquipmentID: EquipmentID(fmt.Sprint("e", i%2))}
			_, err := s.Execute(context.Background(), "clinica-sol", c, admin)
			switch {
			case err == nil:
				won.Add(1)
			case !HasCode(err, CodeEquipmentOccupied):
				t.Errorf("device %d: %v", i, err)
			}
		})
	}
	group.Wait()
	if won.Load() != 2 {
		t.Errorf("%d of 8 plugs won 2 pieces of equipment", won.Load())
	}
}

// A repeated command appends once: under the same key, at once or later, it has the same result. A different command
// under that key is refused.
func TestSameKeyAppendsOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		s := newTestService(m)
		prepare(t, m, s, 3, 3)
		before := len(m.events)
		r := admin
		r.IdempotencyKey, r.Fingerprint = "k1", "a"
		c := AssignPlug{DeviceID: "d1", EquipmentID: "e1"}
		first, err := s.Execute(context.Background(), "clinica-sol", c, r)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 4).Draw(t, "repeats") {
			if rapid.Bool().Draw(t, "in between") {
				other := AssignPlug{DeviceID: "d2", EquipmentID: "e1", Move: true}
				if _, err := s.Execute(context.Background(), "clinica-sol", other, admin); err != nil {
					t.Fatal(err)
				}
				before = len(m.events) - 1
			}
			again, err := s.Execute(context.Background(), "clinica-sol", c, r)
			first.Replayed = true
			if err != nil || again != first {
				t.Fatalf("repeat answered %+v, %v; first %+v", again, err, first)
			}
		}
		if appended := len(m.events) - before; appended != 1 {
			t.Fatalf("%d events appended", appended)
		}
		r.Fingerprint = "b"
		if _, err := s.Execute(context.Background(), "clinica-sol", ReleasePlug{DeviceID: "d1"}, r); !HasCode(err, CodeKeyReused) {
			t.Fatalf("another request under the key: %v", err)
		}
	})
}

// A command that appends several events does not make the next one on the aggregate conflict.
func TestCommandsOnOneConnection(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := newTestService(m)
	ctx := context.Background()
	create := CreateConnection{ConnectionCreated{ConnectionID: "acc1", Kind: ConnectionShellyCloud}}
	for range 2 {
		if _, err := s.Execute(ctx, "clinica-sol", create, admin); err != nil {
			t.Fatal(err)
		}
		for _, verb := range []ConnectionVerb{VerbStop, VerbStart, VerbRestart, VerbStop, VerbDelete} {
			c := ControlConnection{ConnectionCommand: ConnectionCommand{ConnectionID: "acc1"}, Verb: verb}
			if r, err := s.Execute(ctx, "clinica-sol", c, admin); err != nil || r.Unchanged {
				t.Fatalf("%s: %+v, %v", verb, r, err)
			}
		}
	}
}

// A command may name things that were appended a moment ago, even if the projection lags.
func TestCommandSeesWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := newTestService(m)
	prepare(t, m, s, 1, 1)
	m.stale = func(int) int { return 0 }
	first, err := s.Execute(context.Background(), "clinica-sol", AssignPlug{DeviceID: "d0", EquipmentID: "e0"}, admin)
	if err != nil || first.Unchanged {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := s.Execute(context.Background(), "clinica-sol", AssignPlug{DeviceID: "d0", EquipmentID: "e0"}, admin)
	if err != nil || !again.Unchanged || again.Position != first.Position {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestPublishRejectsWholeBatch(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := newTestService(m)
	r := Request{Actor: Actor{Subject: "backend", Role: RoleService, Systems: []SystemID{"clinica-sol"}}}
	good := SystemUpdate{SystemID: "clinica-sol", DeviceUpdate: DeviceUpdate{DeviceID: "d1"}}
	foreign := good
	foreign.SystemID = "centro-luna"
	bad := good
	bad.DeviceID = "no spaces"
	for code, batch := range map[Code][]SystemUpdate{
		CodeForbidden:       {good, good, foreign},
		CodeInvalidDeviceID: {good, good, bad},
		CodeBatchTooLarge:   make([]SystemUpdate, MaxUpdatesPerBatch+1),
	} {
		_, err := s.Publish(context.Background(), batch, r)
		if !HasCode(err, code) {
			t.Errorf("want %s, got %v", code, err)
		}
		if i := AsError(err).Params["index"]; code != CodeBatchTooLarge && i != 2 {
			t.Errorf("%s: index %v", code, i)
		}
	}
	if len(m.events) != 0 {
		t.Errorf("%d events appended", len(m.events))
	}
}

// quota is a DeviceQuota of so many devices per system.
type quota struct {
	most  int
	known map[SystemID]map[DeviceID]bool
	open  int // admissions that are not settled
}

func (q *quota) Admit(_ context.Context, system SystemID, devices []DeviceID) (Admission, error) {
	if q.known[system] == nil {
		q.known[system] = map[DeviceID]bool{}
	}
	a, fresh := Admission{Most: q.most}, map[DeviceID]bool{}
	for _, id := range devices {
		switch {
		case q.known[system][id]:
		case len(q.known[system])+len(fresh) < q.most:
			fresh[id] = true
		default:
			if a.Refused == nil {
				a.Refused = map[DeviceID]bool{}
			}
			a.Refused[id] = true
		}
	}
	q.open++
	a.OnSettle = func(appended bool) {
		q.open--
		for id := range fresh {
			if appended {
				q.known[system][id] = true
			}
		}
	}
	return a, nil
}

// One device too many refuses the whole batch, with its index, whichever system of the
// batch it is of.
func TestPublishRefusesDevicesTooMany(t *testing.T) {
	t.Parallel()
	m, q := newMemory(), &quota{most: 2, known: map[SystemID]map[DeviceID]bool{}}
	s := NewService(m, m, q, func() string { return "cmd" })
	of := func(devices ...string) (updates []SystemUpdate) {
		for _, name := range devices {
			system, id, _ := strings.Cut(name, "/")
			updates = append(updates, SystemUpdate{SystemID: SystemID(system), DeviceUpdate: DeviceUpdate{DeviceID: DeviceID(id)}})
		}
		return updates
	}
	for _, c := range []struct {
		batch []SystemUpdate
		index int // of the one too many; -1 when there is none
	}{
		{of("sol/a", "luna/a", "sol/a", "sol/b", "luna/b"), -1},
		{of("sol/a", "sol/c", "luna/c"), 1},
		{of("luna/b", "luna/c", "sol/c"), 1},
		{of("mar/a", "sol/b", "mar/b", "sol/c", "mar/c"), 3},
		{of("mar/x", "mar/y"), -1}, // a and b were not taken
	} {
		before := len(m.events)
		_, err := s.Publish(context.Background(), c.batch, admin)
		want := before + len(c.batch)
		if c.index >= 0 {
			want = before
			if e := AsError(err); e.Code != CodeTooManyDevices || e.Kind != KindConflict || e.Params["index"] != c.index ||
				e.Params["deviceId"] != c.batch[c.index].DeviceID {
				t.Errorf("%v: %v, %v", c.batch, e, e.Params)
			}
		} else if err != nil {
			t.Errorf("%v: %v", c.batch, err)
		}
		if len(m.events) != want || q.open != 0 {
			t.Errorf("%v: %d events, want %d; %d admissions are open", c.batch, len(m.events), want, q.open)
		}
	}
}

func TestCommandErrors(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := newTestService(m)
	prepare(t, m, s, 2, 2)
	ctx, old := context.Background(), Position{Ms: 999}
	if _, err := s.Execute(ctx, "clinica-sol", AssignPlug{DeviceID: "d0", EquipmentID: "e0"}, admin); err != nil {
		t.Fatal(err)
	}
	viewer := Request{Actor: Actor{Subject: "v", Role: RoleViewer, Systems: []SystemID{"clinica-sol"}}}
	stranger := Request{Actor: Actor{Subject: "o", Role: RoleOperator, Systems: []SystemID{"centro-luna"}}}
	assign := func(d DeviceID, e EquipmentID, r Request, match *Position) error {
		_, err := s.Execute(ctx, "clinica-sol", AssignPlug{DeviceID: d, EquipmentID: e, IfMatch: match}, r)
		return err
	}
	for name, c := range map[string]struct {
		code Code
		err  error
	}{
		"device":    {CodeUnknownDevice, assign("nope", "e0", admin, nil)},
		"equipment": {CodeUnknownEquipment, assign("d0", "nope", admin, nil)},
		"occupied":  {CodeEquipmentOccupied, assign("d1", "e0", admin, nil)},
		"stale":     {CodeStale, assign("d0", "e1", admin, &old)},
		"viewer":    {CodeForbidden, assign("d0", "e1", viewer, nil)},
		"stranger":  {CodeForbidden, assign("d0", "e1", stranger, nil)},
	} {
		if !HasCode(c.err, c.code) {
			t.Errorf("%s: want %s, got %v", name, c.code, c.err)
		}
	}
}

// A disconnect that names nobody is refused, because it would disconnect everybody.
func TestDisconnectNamesSomebody(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := newTestService(m)
	staff := Request{Actor: Actor{Subject: "root", Role: RoleStaff}}
	everybody := Disconnect{DisconnectRequested{CloseSockets: true}}
	if _, err := s.Execute(t.Context(), PlatformSystem, everybody, staff); !HasCode(err, CodeInvalidCommand) {
		t.Errorf("%v", err)
	}
	maria := Disconnect{DisconnectRequested{Subject: "maria", CloseSockets: true}}
	if _, err := s.Execute(t.Context(), PlatformSystem, maria, staff); err != nil || len(m.events) != 1 {
		t.Errorf("%v, %d events", err, len(m.events))
	}
}

func TestParseSystemUpdate(t *testing.T) {
	t.Parallel()
	for in, code := range map[string]Code{
		`{"systemId":"s","deviceId":"d","online":true,"relayOn":null,"attributes":{"a":1}}`: "",
		`{"systemId":"s","deviceId":"d","relayon":"x"}`:                                     CodeInvalidUpdate,
		`{"systemId":"s","deviceId":"d","relay_on":true}`:                                   CodeInvalidUpdate,
		`{"systemId":"s","deviceId":"d","powerW":"12"}`:                                     CodeInvalidUpdate,
		`{"systemId":"s","deviceId":"d","powerW":1e999}`:                                    CodeInvalidUpdate,
		`{"systemId":"s","deviceId":"d","deviceTime":"yesterday"}`:                          CodeInvalidUpdate,
		`{"systemId":"s","deviceId":"d","attributes":[1]}`:                                  CodeInvalidUpdate,
		`{"systemId":"s","deviceId":"d","online":true,"online":false}`:                      CodeInvalidUpdate,
		"{\"systemId\":\"s\",\"deviceId\":\"d\",\"name\":\"\xff\"}":                         CodeInvalidUpdate,
		`{"systemId":"..","deviceId":"d"}`:                                                  CodeInvalidSystemID,
		`{"systemId":"s s","deviceId":"d"}`:                                                 CodeInvalidSystemID,
		`{"systemId":"s","deviceId":""}`:                                                    CodeInvalidDeviceID,
		`{"systemId":"s","deviceId":"d"} {}`:                                                CodeInvalidUpdate,
		`{"systemId":"s",`:                                                                  CodeInvalidUpdate,
		`[]`:                                                                                CodeInvalidUpdate,
		``:                                                                                  CodeInvalidUpdate,
	} {
		_, err := ParseSystemUpdate([]byte(in))
		var e *Error
		switch {
		case code == "" && err != nil:
			t.Errorf("%s: %v", in, err)
		case code != "" && (!errors.As(err, &e) || e.Code != code):
			t.Errorf("%s: want %s, got %v", in, code, err)
		}
	}
}

func BenchmarkParseSystemUpdate(b *testing.B) {
	raw := []byte(`{"systemId":"clinica-sol","deviceId":"shellyplugsg3-8cbfea9a1b2c","online":true,"relayOn":true,` +
		`"powerW":399.2,"voltageV":240.8,"currentA":1.886,"energyWh":2574466.629}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseSystemUpdate(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// A command with several faults always fails with the same one, because clients and their tests compare texts.
func TestSameFaultEachTime(t *testing.T) {
	t.Parallel()
	s := newTestService(newMemory())
	long := string(make([]byte, maxText+1))
	bad := RegisterEquipment{EquipmentRegistered{EquipmentID: "e", Name: long, Kind: long, Location: long}}
	for range 50 {
		if _, err := s.Execute(t.Context(), "clinica-sol", bad, admin); AsError(err).Detail != "name is limited to 256 bytes" {
			t.Fatal(err)
		}
	}
}

// An administrator of one system cannot use it to disconnect the sockets of another.
func TestDisconnectInItsSystem(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := newTestService(m)
	administrator := Request{Actor: Actor{Subject: "a", Role: RoleAdmin, Systems: []SystemID{"clinica-sol"}}}
	for _, target := range []SystemID{"", "centro-luna"} {
		c := Disconnect{DisconnectRequested{TargetSystem: target, Subject: "maria", CloseSockets: true}}
		if _, err := s.Execute(t.Context(), "clinica-sol", c, administrator); !HasCode(err, CodeForbidden) {
			t.Errorf("target %q: %v", target, err)
		}
	}
	if len(m.events) != 0 {
		t.Errorf("%d events appended", len(m.events))
	}
}
