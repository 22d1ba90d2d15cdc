package rest

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
)

// intakeStub implements [Bridges] with a cursor per source. It records the imported
// batches.
type intakeStub struct {
	mu       sync.Mutex
	cursors  map[string]domain.Position
	imported []domain.ImportBatch
}

func (s *intakeStub) Deployment() string { return "this-one" }

func (s *intakeStub) Import(_ context.Context, b domain.ImportBatch) (domain.ImportResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := domain.ParseDeployment(b.Source); err != nil {
		return domain.ImportResult{}, err
	}
	if b.After.After(s.cursors[b.Source]) {
		return domain.ImportResult{}, &domain.ImportGapError{Source: b.Source, After: b.After, Cursor: s.cursors[b.Source]}
	}
	s.cursors[b.Source] = b.Through
	s.imported = append(s.imported, b)
	return domain.ImportResult{Accepted: len(b.Events), Cursor: b.Through}, nil
}

func (s *intakeStub) Cursor(_ context.Context, _ domain.SystemID, source string) (domain.Position, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, known := s.cursors[source]
	return at, known, nil
}

// oneTooMany is a source beyond the limit of sources.
const oneTooMany = "one-too-many"

func (s *intakeStub) SkipTo(_ context.Context, _ domain.SystemID, source string, at domain.Position) error {
	if source == oneTooMany {
		return domain.Fail(domain.KindConflict, domain.CodeTooManySources, "no more")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.cursors[source]; !known {
		s.cursors[source] = at
	}
	return nil
}

func (s *intakeStub) Rewind(_ context.Context, _ domain.SystemID, source string, to domain.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursors[source] = to
	return nil
}

func (s *intakeStub) List(context.Context) ([]json.RawMessage, error) {
	return []json.RawMessage{json.RawMessage(`{"bridge":"cloud"}`)}, nil
}

const bridged = `{"event":"device-update","position":"7-0","seq":3,"id":"a","systemId":"clinica-sol",` +
	`"time":"2026-11-23T18:00:00.123456Z",` +
	`"actor":"x","correlationId":"k","origin":"third","version":1,"data":{"deviceId":"d1","relayOn":true}}`

func TestTakeEvents(t *testing.T) {
	t.Parallel()
	stub := &intakeStub{cursors: map[string]domain.Position{}}
	b := setup(t, func(c *Config) { c.Bridges = stub })
	const events = sol + "/bridge/events?source=far"

	got := b.send(domain.RoleBridge, "POST", events+"&after=0-0&through=9-0", bridged+"\n"+strings.ReplaceAll(bridged, `"7-0"`, `"8-0"`),
		"Content-Type: application/x-ndjson")
	b.want(got, 200, "")
	if diff := cmp.Diff(map[string]any{"accepted": 2.0, "duplicates": 0.0, "own": 0.0, "position": "9-0"}, got.body); diff != "" {
		t.Error(diff)
	}
	e := stub.imported[0].Events[0]
	if e.ID != "a" || e.Origin != "third" || e.Position != (domain.Position{Ms: 7}) || string(e.Data) != `{"deviceId":"d1","relayOn":true}` {
		t.Errorf("the intake got %+v", e)
	}
	b.want(b.send(domain.RoleBridge, "POST", events+"&after=9-0&through=12-0", ""), 200, "") // an empty batch

	behind := b.send(domain.RoleBridge, "POST", events+"&after=13-0&through=14-0", "[]")
	b.want(behind, 409, domain.CodeBridgeBehind)
	if behind.body["cursor"] != "12-0" {
		t.Errorf("the answer says to continue from %v", behind.body["cursor"])
	}
	// Only a bridge may append events with any actor's name.
	for _, role := range []domain.Role{domain.RoleViewer, operator, domain.RoleAuditor, domain.RoleAdmin, service} {
		b.want(b.send(role, "POST", events+"&after=0-0&through=9-0", "[]"), 403, domain.CodeForbidden)
		b.want(b.send(role, "PUT", sol+"/bridge/cursor?source=far", `{"position":"5-1"}`), 403, domain.CodeForbidden)
	}
	b.want(b.send(domain.RoleBridge, "GET", sol+"/devices", ""), 200, "")
	b.want(b.send(domain.RoleBridge, "GET", sol+"/events", ""), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleBridge, "POST", publishPath, oneItem), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleBridge, "PUT", sol+"/devices/d1/assignment", `{"equipmentId":"laser-1"}`), 403, domain.CodeForbidden)
	foreign := b.send(domain.RoleBridge, "POST", "/api/v1/systems/centro-luna/bridge/events?source=far&after=0-0&through=9-0", "[]")
	b.want(foreign, 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleBridge, "POST", events+"&after=0-0&through=x", "[]"), 400, domain.CodeInvalidPosition)
	b.want(b.send(domain.RoleBridge, "POST", events+"&after=0-0&through=9-0", `[{"position":7}]`), 400, CodeInvalidRequest)
	tooMany := "[" + strings.Repeat(bridged+",", domain.MaxImportBatch) + bridged + "]"
	b.want(b.send(domain.RoleBridge, "POST", events+"&after=0-0&through=9-0", tooMany),
		413, domain.CodeBatchTooLarge)
}

func TestBridgeCursor(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *Config) { c.Bridges = &intakeStub{cursors: map[string]domain.Position{}} })
	const cursor = sol + "/bridge/cursor?source=far"
	for _, step := range []struct {
		method, body string
		known        bool
		position     string
	}{
		{"GET", "", false, "0-0"},
		{"PUT", `{"position":"5-1"}`, true, "5-1"},
		{"PUT", `{"position":"9-0"}`, true, "5-1"},
		{"PUT", `{"position":"3-0","rewind":true}`, true, "3-0"},
		{"GET", "", true, "3-0"},
	} {
		got := b.send(domain.RoleBridge, step.method, cursor, step.body)
		b.want(got, 200, "")
		if got.body["known"] != step.known || got.body["position"] != step.position || got.body["deployment"] != "this-one" {
			t.Errorf("%s %s: %v", step.method, step.body, got.body)
		}
	}
	b.want(b.send(operator, "GET", cursor, ""), 403, domain.CodeForbidden)
	b.want(b.send(operator, "GET", "/api/v1/bridges", ""), 403, domain.CodeForbidden)
	list := b.send(domain.RoleStaff, "GET", "/api/v1/bridges", "")
	b.want(list, 200, "")
	if !strings.Contains(list.raw, `"bridges":[{"bridge":"cloud"}]`) || !strings.Contains(list.raw, `"deployment":"this-one"`) {
		t.Errorf("the list is %s", list.raw)
	}
}
