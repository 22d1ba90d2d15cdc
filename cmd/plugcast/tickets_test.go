package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
)

func newTicket(t *testing.T, base, token string) string {
	t.Helper()
	var answer struct{ Ticket string }
	mustCall(t, http.StatusCreated, "POST", base+"/api/v1/tickets", token, nil, &answer)
	return answer.Ticket
}

// A ticket of one node opens one socket or one stream, at any node.
func TestTicketOpensOnce(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	d := newDeployment(t)
	here, there := d.start(t, ""), d.start(t, "")
	viewer := testToken(t, domain.RoleViewer, system)

	ticket := newTicket(t, here.base, viewer)
	converseByTicket(t, there.base, ticket).join(system)
	for _, n := range []*node{here, there} {
		again := converseByTicket(t, n.base, ticket)
		var why refusal
		again.await("error", &why)
		if code := again.ended(); code != 4401 || why.Code == "" {
			t.Errorf("a used ticket: %+v, closed with %d", why, code)
		}
		openStream(t, http.StatusUnauthorized, n.base, system, "?ticket="+ticket, "")
	}

	ticket = newTicket(t, here.base, viewer)
	openStream(t, http.StatusForbidden, there.base, "centro-luna", "?ticket="+ticket, "")
	ticket = newTicket(t, here.base, viewer)
	stream := openStream(t, http.StatusOK, there.base, system, "?ticket="+ticket, "")
	openStream(t, http.StatusUnauthorized, there.base, system, "?ticket="+ticket, "")
	update := []map[string]any{{"systemId": system, "deviceId": "plug-1"}}
	mustCall(t, http.StatusOK, "POST", here.base+"/api/v1/device-updates", testToken(t, domain.RoleService, system), update, nil)
	if name, data, _ := stream.next(); name != string(domain.TypeDeviceUpdate) {
		t.Errorf("the stream said %s %s", name, data)
	}

	// Many at once, at two nodes: one gets in.
	ticket = newTicket(t, here.base, viewer)
	var in atomic.Int32
	var group sync.WaitGroup
	for i := range 16 {
		base := []*node{here, there}[i%2].base
		group.Go(func() {
			conn, err := dialByTicket(t.Context(), base, ticket)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			frames, err := readFrames(conn)
			if err != nil {
				t.Error(err)
				return
			}
			var status struct{ Connected bool }
			if err := json.Unmarshal(frames[0].Data, &status); err != nil {
				t.Error(err)
			}
			if status.Connected {
				in.Add(1)
			}
		})
	}
	group.Wait()
	if in.Load() != 1 {
		t.Errorf("%d of 16 got in with one ticket", in.Load())
	}
}

func dialByTicket(ctx context.Context, base, ticket string) (*websocket.Conn, error) {
	url := strings.Replace(base, "http://", "ws://", 1) + "/ws?ticket=" + ticket
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
	return conn, err
}

// converseByTicket opens a socket with a ticket.
func converseByTicket(t *testing.T, base, ticket string) *conversation {
	t.Helper()
	conn, err := dialByTicket(t.Context(), base, ticket)
	return newConversation(t, conn, err)
}
