package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/plugcast/plugcast/domain"
)

// loadState makes the state that a snapshot lists.
func loadState(s *domain.Snapshot) *domain.State {
	state := domain.NewState(s.SystemID)
	state.Cursor = domain.Cursor{Position: s.Position, Seq: s.Seq}
	for _, d := range s.Devices {
		state.Devices[d.DeviceID] = d
	}
	for _, e := range s.Equipment {
		state.Equipment[e.EquipmentID] = e
	}
	for _, a := range s.Assignments {
		state.Assignments[a.DeviceID] = a
	}
	for _, c := range s.Connections {
		state.Connections[c.ConnectionID] = c
	}
	return state
}

// watch joins with a snapshot, says so, and folds every event after it until the
// system is at seq last(), 0 being "not known yet".
func watch(ctx context.Context, base, token string, system domain.SystemID, last func() uint64, joined func()) (*domain.State, error) {
	conn, err := dial(ctx, base, token)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	join := map[string]any{"systemId": system, "snapshot": true}
	if err := conn.WriteJSON(map[string]any{"event": "join-system", "id": "j", "data": join}); err != nil {
		return nil, err
	}
	var state *domain.State
	for state == nil || last() == 0 || state.Cursor.Seq < last() {
		frames, err := readFrames(conn)
		if err != nil {
			return state, fmt.Errorf("read: %w", err)
		}
		for _, f := range frames {
			switch {
			case f.Event == "snapshot":
				var s domain.Snapshot
				if err := json.Unmarshal(f.Data, &s); err != nil {
					return nil, err
				}
				state = loadState(&s)
				joined()
			case f.Seq > 0:
				var e domain.Event
				if err := json.Unmarshal(f.raw, &e); err != nil {
					return nil, err
				}
				if state == nil {
					return nil, fmt.Errorf("event %s came before the snapshot", e.Cursor())
				}
				if e.Seq <= state.Cursor.Seq {
					return nil, fmt.Errorf("event %s came after %s", e.Cursor(), state.Cursor)
				}
				if _, err := state.Apply(&e); err != nil {
					return nil, err
				}
			}
		}
	}
	return state, nil
}

// busy changes a system in every way that a client can, until stop is closed,
// and then returns the last position.
func busy(t *testing.T, base string, system domain.SystemID, stop <-chan struct{}) domain.Position {
	service, operator := testToken(t, domain.RoleService, system), testToken(t, domain.RoleOperator, system)
	systemURL := base + "/api/v1/systems/" + string(system)
	var last domain.Position
	note := func(status int, answer []byte, err error) {
		var receipt struct {
			Position  domain.Position `json:"position"`
			Positions map[domain.SystemID]domain.PositionRange
		}
		switch {
		case err != nil:
			t.Error(err)
		case status >= 500:
			t.Errorf("status %d: %s", status, answer)
		case status < 300 && json.Unmarshal(answer, &receipt) == nil:
			for _, at := range []domain.Position{receipt.Position, receipt.Positions[system].Last} {
				if at.After(last) {
					last = at
				}
			}
		}
	}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return last
		default:
		}
		device, thing := fmt.Sprintf("plug-%d", rand.IntN(6)), fmt.Sprintf("thing-%d", rand.IntN(4))
		var status int
		var answer []byte
		var err error
		switch rand.IntN(8) {
		case 0:
			status, _, answer, err = call(t.Context(), "PUT", systemURL+"/devices/"+device+"/assignment?move=true", operator,
				map[string]string{"equipmentId": thing})
		case 1:
			status, _, answer, err = call(t.Context(), "DELETE", systemURL+"/devices/"+device+"/assignment", operator, nil)
		case 2:
			status, _, answer, err = call(t.Context(), "POST", systemURL+"/equipment", operator,
				map[string]string{"equipmentId": thing, "name": "thing " + fmt.Sprint(i)})
		default:
			update := map[string]any{"systemId": system, "deviceId": device, "relayOn": []any{true, false, nil}[rand.IntN(3)]}
			if rand.IntN(2) == 0 {
				update["powerW"], update["online"] = rand.IntN(3000), rand.IntN(5) > 0
			}
			status, _, answer, err = call(t.Context(), "POST", base+"/api/v1/device-updates", service, []any{update})
		}
		note(status, answer, err)
		if err != nil {
			return last
		}
	}
}

// A snapshot taken at any moment of the traffic, folded with what comes after it,
// is the server's own state at the end. 1,000 joins, each at a moment of its own.
func TestSnapshotAndTailMakeTheState(t *testing.T) {
	t.Parallel()
	const systems = 4
	joins := 1000
	if testing.Short() {
		joins = 300
	}
	d := newDeployment(t)
	n := d.start(t, "")

	var writers, readers sync.WaitGroup
	stop, ended := make(chan struct{}), make(chan struct{})
	ids, tokens := make([]domain.SystemID, systems), make([]string, systems)
	ends, finals := make([]domain.Position, systems), make([]*domain.Snapshot, systems)
	for i := range systems {
		ids[i] = domain.SystemID(fmt.Sprintf("busy-%d", i))
		tokens[i] = testToken(t, domain.RoleViewer, ids[i])
		writers.Go(func() { ends[i] = busy(t, n.base, ids[i], stop) })
	}
	// last is the seq to read up to, or 0 while the traffic goes on. Whoever has
	// it already hears so at the next heartbeat.
	last := func(i int) uint64 {
		select {
		case <-ended:
			return finals[i].Seq
		default:
			return 0
		}
	}
	states := make([]*domain.State, joins)
	opening := make(chan struct{}, 8)
	for j := range joins {
		opening <- struct{}{}
		readers.Go(func() {
			i := j % systems
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			joined := sync.OnceFunc(func() { <-opening })
			defer joined()
			var err error
			states[j], err = watch(ctx, n.base, tokens[i], ids[i], func() uint64 { return last(i) }, joined)
			if err != nil {
				t.Errorf("join %d: %v", j, err)
			}
		})
	}
	close(stop)
	writers.Wait()
	for i := range systems {
		finals[i] = new(domain.Snapshot)
		url := fmt.Sprintf("%s/api/v1/systems/%s/snapshot?after-position=%s", n.base, ids[i], ends[i])
		mustCall(t, http.StatusOK, "GET", url, tokens[i], nil, finals[i])
	}
	close(ended)
	readers.Wait()
	for j, state := range states {
		if state == nil {
			continue
		}
		diff := cmp.Diff(loadState(finals[j%systems]), state, cmpopts.IgnoreUnexported(domain.State{}))
		if diff != "" {
			t.Fatalf("join %d (-server +client):\n%s", j, diff)
		}
	}
}
