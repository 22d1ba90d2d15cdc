package engineio

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/transport/testpeer"
)

// flooded is a server at which one address begins more sessions than its limit.
type flooded struct {
	t      *testing.T
	server *Server
}

func flood(t *testing.T, test func(f *flooded)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server, err := New(Config{
			Open:         func(*Session, *http.Request) Handler { return silent{} },
			MaxUnsettled: 40, MaxUnsettledPerAddress: 10, MaxSessions: 150, MaxSessionsPerAddress: 100,
			PingInterval: time.Hour, SettleTimeout: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		testpeer.Run(t, server.Run)
		defer func() { _ = server.Shutdown(context.Background()) }()
		test(&flooded{t, server})
	})
}

func (f *flooded) request(method, address, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "/?EIO=4&transport=polling"+query, nil)
	r.RemoteAddr = address + ":1234"
	f.server.ServeHTTP(w, r)
	return w
}

// begin makes a handshake and returns the id of the session.
func (f *flooded) begin(address string) string {
	f.t.Helper()
	w := f.request("GET", address, "")
	var open openData
	if w.Code != http.StatusOK || json.Unmarshal(w.Body.Bytes()[1:], &open) != nil {
		f.t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return open.ID
}

// TestFloodOfHandshakes begins many sessions at one address. The server evicts no client
// of another address, and no client that is logging in.
func TestFloodOfHandshakes(t *testing.T) {
	t.Parallel()
	flood(t, func(f *flooded) {
		const flooder, neighbour = "192.0.2.1", "192.0.2.2"
		other := f.begin(neighbour)
		loggingIn := f.begin(flooder)
		f.server.mu.Lock()
		f.server.spoke(f.server.sessions[loggingIn])
		f.server.mu.Unlock()
		for range 1000 {
			f.begin(flooder)
		}
		if f.server.find(other) == nil {
			t.Error("a client of another address was evicted")
		}
		if f.server.find(loggingIn) == nil {
			t.Error("a client that is logging in was evicted")
		}
		if n := f.server.Len(); n != 11 {
			t.Errorf("%d sessions; the address may have 10", n)
		}
	})
}

// TestFloodOfLogins begins sessions that send requests but never authenticate. The
// server keeps them for a while and tells newcomers to come back later.
func TestFloodOfLogins(t *testing.T) {
	t.Parallel()
	flood(t, func(f *flooded) {
		const flooder = "2001:db8::"
		at := func(n int) string { return fmt.Sprintf("[%s%x]", flooder, n+1) } // all addresses are in one network
		var first string
		for i := range 10 {
			id := f.begin(at(i))
			f.server.find(id) // each request looks up its session
			if i == 0 {
				first = id
			}
		}
		w := f.request("GET", at(99), "")
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("status %d, %v", w.Code, w.Header())
		}
		f.begin("192.0.2.2")
		time.Sleep(loginTime)
		f.begin(at(99))
		if f.server.find(first) != nil {
			t.Error("the session that took longest did not give way")
		}
	})
}

// TestFloodOfRefusedLogins begins sessions whose clients send invalid credentials or
// packets without content. The server evicts them before sessions of the same address
// that have sent nothing yet, because the address may be that of a proxy.
func TestFloodOfRefusedLogins(t *testing.T) {
	t.Parallel()
	for name, useless := range map[string]func(*Session){
		"a credential": (*Session).Refused,
		"a noop":       func(s *Session) { s.receive(packet{kind: packetNoop}) },
		"a pong":       func(s *Session) { s.receive(packet{kind: packetPong}) },
		"an upgrade":   func(s *Session) { s.receive(packet{kind: packetUpgrade}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flood(t, func(f *flooded) {
				const address = "192.0.2.1"
				logsIn, waits := f.begin(address), f.begin(address)
				f.server.find(logsIn)
				for range 1000 {
					session := f.server.find(f.begin(address))
					useless(session)
					f.server.find(session.id)
				}
				if f.server.find(logsIn) == nil {
					t.Error("a client that is logging in was evicted")
				}
				if session := f.server.find(waits); session == nil {
					t.Error("a client that is about to log in was evicted")
				} else {
					session.Refused()
					session.Settle() // the client got another token
				}
				if n := f.server.Len(); n != 10 {
					t.Errorf("%d sessions", n)
				}
			})
		})
	}
}

// TestSettledSessions demands that an address may have more settled sessions than
// unsettled ones, up to a limit.
func TestSettledSessions(t *testing.T) {
	t.Parallel()
	flood(t, func(f *flooded) {
		const flooder, neighbour = "192.0.2.1", "192.0.2.2"
		var sessions []*Session
		for range 100 {
			session := f.server.find(f.begin(flooder))
			session.Settle()
			sessions = append(sessions, session)
		}
		if w := f.request("GET", flooder, ""); w.Code != http.StatusServiceUnavailable {
			t.Errorf("the address has one session more than it may: status %d", w.Code)
		}
		f.begin(neighbour)
		sessions[0].fail(ReasonClosed)
		f.begin(flooder)
		for _, session := range sessions {
			session.fail(ReasonClosed)
		}
		_ = f.server.Shutdown(context.Background())
		if n, known := f.server.Len(), len(f.server.admission.sources); n != 0 || known != 0 || f.server.admission.all.sessions != 0 {
			t.Errorf("%d sessions are left, and %d addresses are remembered", n, known)
		}
	})
}
