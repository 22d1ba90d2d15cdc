package cloud

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

func (b *bench) refused(id domain.ConnectionID) {
	b.t.Helper()
	b.eventually("the credential is refused", func() bool { return b.log.connection(sol, id).State == domain.StateRefused })
	b.eventually("it counts as refused", func() bool { return b.supervisor.Stats()[domain.StateRefused] == 1 })
	if r := b.send(to(true, "cmd-refused")); r.Outcome != domain.OutcomeFailed {
		b.t.Errorf("a command through a refused credential: %+v", r)
	}
}

// states returns the appended states of a connection, in order.
func (b *bench) states(id domain.ConnectionID) (out []domain.ConnectionState) {
	for _, s := range b.log.said(id) {
		out = append(out, s.State)
	}
	return out
}

func TestFaultCasesAuth(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, of shellycloud.Config, change ...func(*Config)) (*bench, *shellycloud.Account, *shellycloud.Device) {
		cfg := quick()
		for _, f := range change {
			f(&cfg)
		}
		b := newBench(t, cfg, of)
		a, d := b.account(sol, "acc1")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		return b, a, d
	}
	replace := func(b *bench, s Secret) {
		b.keepSecret(s)
		b.store.put("acc1", s)
		b.command(sol, domain.ConnectionUpdated{ConnectionID: "acc1", CommandID: "c", Credential: true})
		b.supervisor.Changed(0, domain.ConnectionRef{System: sol, ID: "acc1"}, domain.TypeConnectionUpdated)
	}

	t.Run("code reuse", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t, shellycloud.Config{})
		a.CodeOnceOnly() // and it was used
		a.BreakSockets()
		b.eventually("there is another socket", func() bool { return a.Counts().Dials == 2 && a.Counts().Sockets == 1 })
		if n := a.Counts().Exchanges; n != 1 {
			t.Errorf("a token that is good was renewed: %d exchanges", n)
		}
		a.ExpireTokens()
		a.CloseSockets(4401, "Token-Broken")
		b.refused("acc1")
	})
	t.Run("code reuse with a refresh token", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, quick(), shellycloud.Config{TokenLife: 400 * time.Millisecond})
		a, d := b.account(sol, "acc1")
		a.CodeOnceOnly()
		a.SetRefreshToken("refresh-me-if-you-can")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		b.eventually("the token was renewed twice", func() bool { return a.Counts().Dials >= 3 })
		d.Press(0, true)
		b.relay(sol, plug, true)
	})
	t.Run("12 h expiry during a session", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t, shellycloud.Config{TokenLife: time.Second})
		first := b.store.get("acc1").AccessToken
		b.eventually("the token was renewed thrice", func() bool { return a.Counts().Exchanges >= 4 && a.Counts().Dials >= 4 })
		d.Press(0, true)
		b.relay(sol, plug, true)
		if states := b.states("acc1"); len(states) != 1 {
			t.Errorf("renewals were reported: %v", states)
		}
		if b.store.get("acc1").AccessToken == first || a.Counts().Most != 1 {
			t.Error("the renewed token is not kept, or there were two sockets at once")
		}
	})
	t.Run("renewed token while a command is pending", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t, shellycloud.Config{})
		b.supervisor.mu.Lock()
		s := b.supervisor.workers[sol]["acc1"].session
		b.supervisor.mu.Unlock()
		b.eventually("it is connected", func() bool { return s.connectionState() == domain.StateConnected })
		a.Deaf(true)
		b.begin(to(true, "cmd-1"))
		b.eventually("the session sends it", func() bool { return len(s.requests) == 0 })
		fresh, _, err := s.renew(t.Context(), b.store.get("acc1"), true)
		if err != nil {
			t.Fatal(err)
		}
		b.keepSecret(fresh)
		renewed := s.link.renewed
		renewed <- renewal{secret: fresh}
		b.eventually("the session has the token", func() bool { return len(renewed) == 0 })
		a.CloseSockets(4401, "Token-Broken") // of the old token
		b.eventually("there is another socket", func() bool { return a.Counts().Dials == 2 && a.Counts().Sockets == 1 })
		if n := a.Counts().Exchanges; n != 2 {
			t.Errorf("a token that was renewed already is renewed again: %d exchanges", n)
		}
		if states := b.states("acc1"); len(states) != 1 {
			t.Errorf("the renewal was reported: %v", states)
		}
	})
	t.Run("tokens that end during slow handshakes", func(t *testing.T) {
		t.Parallel()
		const life, slow = 500 * time.Millisecond, 3
		b := newBench(t, quick(), shellycloud.Config{TokenLife: life})
		var dials atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/shelly/wss/hk_sock" && dials.Add(1) <= slow {
				select {
				case <-time.After(life): // the token was good when the handshake began
				case <-r.Context().Done():
				}
			}
			b.cloud.ServeHTTP(w, r)
		}))
		t.Cleanup(server.Close)
		b.url = server.URL
		b.account(sol, "acc1")
		b.run(b.supervisor)
		b.connected(sol, "acc1")
		if slices.Contains(b.states("acc1"), domain.StateRefused) {
			t.Error("a credential is refused because its tokens came too late")
		}
	})
	t.Run("expired token accepted then closed", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t, shellycloud.Config{AcceptExpired: time.Millisecond})
		a.ExpireTokens() // although its claims promise hours
		a.BreakSockets()
		b.eventually("the token was renewed", func() bool { return a.Counts().Exchanges == 2 })
		b.eventually("there is a socket that lasts", func() bool { return b.supervisor.Stats()[domain.StateConnected] == 1 })
		a.Revoke()
		a.BreakSockets()
		b.refused("acc1")
	})
	for name, refuse := range map[string][]int{"4401": {4401}, "401/403 at handshake": {401, 403}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, code := range refuse {
				b, a, _ := begin(t, shellycloud.Config{RefuseWith: code})
				a.ExpireTokens()
				a.BreakSockets()
				b.eventually("the token was renewed", func() bool { return a.Counts().Exchanges == 2 && a.Counts().Sockets == 1 })
				b.connected(sol, "acc1")
				a.Revoke()
				a.BreakSockets()
				b.refused("acc1")
				dials := a.Counts().Dials
				replace(b, Secret{AuthCode: a.NewAuthCode()})
				b.connected(sol, "acc1")
				if n := a.Counts().Dials; n != dials+1 {
					t.Errorf("a refused credential was tried %d times more", n-dials)
				}
				if n := a.Counts().Most; n != 1 {
					t.Errorf("%d sockets at once", n)
				}
			}
		})
	}
	t.Run("refresh racing with disconnectCredential", func(t *testing.T) {
		t.Parallel()
		b, a, _ := begin(t, shellycloud.Config{TokenLife: 40 * time.Millisecond})
		stopped := domain.ConnectionRef{System: sol, ID: "acc1"}
		for range 10 {
			b.eventually("there is a socket", func() bool { return a.Counts().Sockets == 1 })
			b.supervisor.Drop(domain.ConnectionRef{System: sol, ID: "acc1"}, time.Now())
		}
		b.command(sol, domain.ConnectionStopped{ConnectionCommand: domain.ConnectionCommand{ConnectionID: "acc1", CommandID: "c"}})
		b.supervisor.Changed(0, stopped, domain.TypeConnectionStopped)
		b.eventually("it is stopped", func() bool { return a.Counts().Sockets == 0 && len(b.supervisor.Stats()) == 0 })
		if n := a.Counts().Most; n != 1 {
			t.Errorf("%d sockets at once", n)
		}
		dials := a.Counts().Dials
		b.supervisor.Drop(domain.ConnectionRef{System: sol, ID: "acc1"}, time.Now())
		b.supervisor.Changed(0, stopped, domain.TypeConnectionUpdated)
		b.eventually("the stop is told", func() bool { return b.log.connection(sol, "acc1").State == domain.StateDisconnected })
		if a.Counts().Dials != dials {
			t.Error("a stopped connection was dialled")
		}
	})
	t.Run("user_api_url to a foreign host", func(t *testing.T) {
		t.Parallel()
		b := newBench(t, quick(), shellycloud.Config{})
		a, _ := b.account(sol, "acc1")
		b.store.put("acc1", Secret{AuthCode: b.cloud.AddAccount("evil", "https://shelly.cloud.example.org").AuthCode()})
		b.run(b.supervisor)
		b.eventually("the credential is refused", func() bool { return b.log.connection(sol, "acc1").State == domain.StateRefused })
		if reason := b.log.said("acc1")[0].Reason; !strings.Contains(reason, "not the Shelly Cloud's") || strings.Contains(reason, "example") {
			t.Errorf("the reason is %q", reason)
		}
		// A valid code whose token names another server is refused too.
		replace(b, Secret{AuthCode: a.AuthCode()})
		b.connected(sol, "acc1")
		a.Move("https://evil.example.org")
		b.eventually("the credential is refused", func() bool { return b.log.connection(sol, "acc1").State == domain.StateRefused })
	})
	t.Run("host move", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t, shellycloud.Config{})
		elsewhere := b.listen()
		a.Move(elsewhere)
		b.eventually("there is a socket there", func() bool {
			return a.Counts().Sockets == 1 && b.supervisor.Stats()[domain.StateConnected] == 1
		})
		d.Press(0, true)
		b.relay(sol, plug, true)
		token, err := readClaims(b.store.get("acc1").AccessToken)
		if err != nil || token.userAPIURL != elsewhere {
			t.Errorf("the kept token is for %s", token.userAPIURL)
		}
	})
	t.Run("revoked grant", func(t *testing.T) {
		t.Parallel()
		b, a, d := begin(t, shellycloud.Config{})
		a.Revoke()
		d.Press(0, true)
		b.relay(sol, plug, true) // the socket that is open goes on
		a.CloseSockets(4401, "Token-Broken")
		b.refused("acc1")
		exchanges := a.Counts().Exchanges
		if got := b.log.device(sol, plug); !*got.RelayOn || !*got.Online || slices.Contains(b.beats.all(), "clinica-sol/"+plug+" false") {
			t.Errorf("a refused credential changed a device: %+v", got)
		}
		want := []domain.ConnectionState{domain.StateConnected, domain.StateDisconnected, domain.StateRefused}
		if got := b.states("acc1"); !slices.Equal(got, want) {
			t.Errorf("states are %v", got)
		}
		// A start command causes one more attempt, and no new report.
		b.supervisor.Changed(0, domain.ConnectionRef{System: sol, ID: "acc1"}, domain.TypeConnectionStarted)
		b.eventually("it was tried", func() bool { return a.Counts().Exchanges > exchanges || a.Counts().Dials > 1 })
		b.refused("acc1")
		if got := b.states("acc1"); !slices.Equal(got, want) {
			t.Errorf("states are %v", got)
		}
	})
	t.Run("token never in logs", func(t *testing.T) {
		t.Parallel()
		// Every test of this file ends with a search for secrets; this one makes the hardest cases.
		b, a, _ := begin(t, shellycloud.Config{})
		token := b.store.get("acc1").AccessToken
		a.Send(`{"event":"Error","message":"bad token ` + token + `"}`)
		a.Send(`{"event":"Shelly:` + a.AuthCode() + `"}`)
		a.Send(`{"event":"Shelly:Online","deviceId":"` + token[:60] + `","online":1}`)
		b.readUpTo(a, "Shelly:Here")
		a.CloseSockets(4000, token[len(token)-40:]+token[:40])
		b.eventually("there is another socket", func() bool { return a.Counts().Dials == 2 && a.Counts().Sockets == 1 })
		b.cloud.Close()
		b.eventually("the outage is told", func() bool { return b.log.connection(sol, "acc1").State == domain.StateDisconnected })
	})
}
