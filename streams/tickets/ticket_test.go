package tickets

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func newStore(t *testing.T) *Store {
	client := redistest.Connect(t, redistest.URL(t))
	return New(client, "test")
}

// Of several concurrent attempts to redeem a ticket, exactly one succeeds.
func TestTicketIsGoodOnce(t *testing.T) {
	t.Parallel()
	s, ctx := newStore(t), context.Background()
	actor := domain.Actor{
		Subject: "maria", Role: domain.RoleViewer, Systems: []domain.SystemID{"clinica-sol"},
		ExpiresAt: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
	ticket, expires, err := s.Issue(ctx, actor)
	if err != nil || time.Until(expires) > Lifetime {
		t.Fatalf("expires %v, %v", expires, err)
	}
	var redeemed atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			got, ok, err := s.Redeem(ctx, ticket)
			if err != nil {
				t.Error(err)
			}
			if ok {
				redeemed.Add(1)
				if diff := cmp.Diff(actor, got); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
	group.Wait()
	if redeemed.Load() != 1 {
		t.Errorf("redeemed %d times", redeemed.Load())
	}
}

func TestTicketEndsWithTheToken(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	end := time.Now().Add(3 * time.Second)
	_, expires, err := s.Issue(context.Background(), domain.Actor{Role: domain.RoleViewer, ExpiresAt: end})
	if err != nil || !expires.Equal(end) {
		t.Errorf("expires %v, want %v (%v)", expires, end, err)
	}
}

func TestUnknownTicket(t *testing.T) {
	t.Parallel()
	if _, ok, err := newStore(t).Redeem(context.Background(), "nope"); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

// A stream ticket can be used any number of times, for its stream only, and leaves nothing in
// Redis: a ticket that lives as long as its token would stay there for years.
func TestTicketOfAStream(t *testing.T) {
	t.Parallel()
	s, ctx := newStore(t), context.Background()
	actor := domain.Actor{
		Subject: "maria", Role: domain.RoleViewer, Systems: []domain.SystemID{"clinica-sol", "centro-luna"},
		ExpiresAt: time.Now().AddDate(99, 0, 0).UTC().Truncate(time.Second),
	}
	ticket, expires, err := s.IssueStream(ctx, actor, "clinica-sol")
	if err != nil || !expires.Equal(actor.ExpiresAt) {
		t.Fatalf("expires %v, %v", expires, err)
	}
	want := actor
	want.Systems = []domain.SystemID{"clinica-sol"} // the ticket grants nothing else
	for range 3 {
		got, ok, err := s.Stream(ctx, ticket, "clinica-sol")
		if diff := cmp.Diff(want, got); err != nil || !ok || diff != "" {
			t.Errorf("%v %v %s", ok, err, diff)
		}
		if again, _, err := s.IssueStream(ctx, actor, "clinica-sol"); err != nil || again != ticket {
			t.Errorf("asked again: another ticket, %v", err)
		}
	}
	if _, ok, err := s.Stream(ctx, ticket, "centro-luna"); ok || err != nil {
		t.Errorf("another stream: %v, %v", ok, err)
	}
	if _, ok, err := s.Redeem(ctx, ticket); ok || err != nil {
		t.Errorf("another use: %v, %v", ok, err)
	}
	once, _, err := s.Issue(ctx, actor)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Stream(ctx, once, "clinica-sol"); ok || err != nil {
		t.Errorf("one for one use: %v, %v", ok, err)
	}
	other := actor
	other.Subject = "ana"
	if theirs, _, err := s.IssueStream(ctx, other, "clinica-sol"); err != nil || theirs == ticket {
		t.Errorf("two people have one ticket, %v", err)
	}
	staff := domain.Actor{Subject: strings.Repeat("<", 128), Role: domain.RoleStaff, AllSystems: true, ExpiresAt: actor.ExpiresAt}
	for i := range 100 {
		system := domain.SystemID(fmt.Sprintf("%s%d", strings.Repeat("s", 60), i))
		ticket, _, err := s.IssueStream(ctx, staff, system)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok, err := s.Stream(ctx, ticket, system); err != nil || !ok || got.AllSystems {
			t.Fatalf("%v %v %v", got, ok, err)
		}
		if len(ticket) > 2048 { // what transport/auth reads
			t.Errorf("a ticket of %d bytes", len(ticket))
		}
	}
	if keys := s.client.Keys(ctx, "*").Val(); len(keys) != 2 { // one one-use ticket, and the key of all stream tickets
		t.Errorf("%d keys: %v", len(keys), keys)
	}
	for what, forged := range map[string]string{
		"changed": strings.ToUpper(ticket), "cut": ticket[:len(ticket)-4], "empty": "", "short": "AAAA", "no base64": "*", "padded": ticket + "=",
		"of another deployment": otherDeployment(t, actor),
	} {
		if _, ok, err := s.Stream(ctx, forged, "clinica-sol"); ok || err != nil {
			t.Errorf("%s: %v, %v", what, ok, err)
		}
	}
	actor.ExpiresAt = time.Now()
	if _, _, err := s.IssueStream(ctx, actor, "clinica-sol"); err == nil {
		t.Error("a ticket was issued for a token that has expired")
	}
}

// otherDeployment returns a ticket with the same content from another deployment.
func otherDeployment(t *testing.T, actor domain.Actor) string {
	t.Helper()
	ticket, _, err := newStore(t).IssueStream(t.Context(), actor, "clinica-sol")
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}
