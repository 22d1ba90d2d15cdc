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
	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func newOffice(t *testing.T) *Office {
	options, err := redis.ParseURL(redistest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return New(client, "test")
}

// However many try at once, one gets in.
func TestTicketIsGoodOnce(t *testing.T) {
	t.Parallel()
	o, ctx := newOffice(t), context.Background()
	actor := domain.Actor{
		Subject: "maria", Role: domain.RoleViewer, Systems: []domain.SystemID{"clinica-sol"},
		ExpiresAt: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
	ticket, expires, err := o.Issue(ctx, actor)
	if err != nil || time.Until(expires) > Lifetime {
		t.Fatalf("expires %v, %v", expires, err)
	}
	var redeemed atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			got, ok, err := o.Redeem(ctx, ticket)
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
	o := newOffice(t)
	end := time.Now().Add(3 * time.Second)
	_, expires, err := o.Issue(context.Background(), domain.Actor{Role: domain.RoleViewer, ExpiresAt: end})
	if err != nil || !expires.Equal(end) {
		t.Errorf("expires %v, want %v (%v)", expires, end, err)
	}
}

func TestUnknownTicket(t *testing.T) {
	t.Parallel()
	if _, ok, err := newOffice(t).Redeem(context.Background(), "nope"); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

// A stream's ticket is good any number of times, at that stream alone, and leaves
// nothing in Redis: one that lives as long as its token would be there for years.
func TestTicketOfAStream(t *testing.T) {
	t.Parallel()
	o, ctx := newOffice(t), context.Background()
	actor := domain.Actor{
		Subject: "maria", Role: domain.RoleViewer, Systems: []domain.SystemID{"clinica-sol", "centro-luna"},
		ExpiresAt: time.Now().AddDate(99, 0, 0).UTC().Truncate(time.Second),
	}
	ticket, expires, err := o.IssueStream(ctx, actor, "clinica-sol")
	if err != nil || !expires.Equal(actor.ExpiresAt) {
		t.Fatalf("expires %v, %v", expires, err)
	}
	want := actor
	want.Systems = []domain.SystemID{"clinica-sol"} // nothing else can be done with it
	for range 3 {
		got, ok, err := o.Stream(ctx, ticket, "clinica-sol")
		if diff := cmp.Diff(want, got); err != nil || !ok || diff != "" {
			t.Errorf("%v %v %s", ok, err, diff)
		}
		if again, _, err := o.IssueStream(ctx, actor, "clinica-sol"); err != nil || again != ticket {
			t.Errorf("asked again: another ticket, %v", err)
		}
	}
	if _, ok, err := o.Stream(ctx, ticket, "centro-luna"); ok || err != nil {
		t.Errorf("another stream: %v, %v", ok, err)
	}
	if _, ok, err := o.Redeem(ctx, ticket); ok || err != nil {
		t.Errorf("another use: %v, %v", ok, err)
	}
	once, _, err := o.Issue(ctx, actor)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := o.Stream(ctx, once, "clinica-sol"); ok || err != nil {
		t.Errorf("one for one use: %v, %v", ok, err)
	}
	other := actor
	other.Subject = "ana"
	if theirs, _, err := o.IssueStream(ctx, other, "clinica-sol"); err != nil || theirs == ticket {
		t.Errorf("two people have one ticket, %v", err)
	}
	staff := domain.Actor{Subject: strings.Repeat("<", 128), Role: domain.RoleStaff, AllSystems: true, ExpiresAt: actor.ExpiresAt}
	for i := range 100 {
		system := domain.SystemID(fmt.Sprintf("%s%d", strings.Repeat("s", 60), i))
		ticket, _, err := o.IssueStream(ctx, staff, system)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok, err := o.Stream(ctx, ticket, system); err != nil || !ok || got.AllSystems {
			t.Fatalf("%v %v %v", got, ok, err)
		}
		if len(ticket) > 2048 { // what transport/auth reads
			t.Errorf("a ticket of %d bytes", len(ticket))
		}
	}
	if keys := o.client.Keys(ctx, "*").Val(); len(keys) != 2 { // the one for one use, and the key of all the others
		t.Errorf("%d keys: %v", len(keys), keys)
	}
	for what, forged := range map[string]string{
		"changed": strings.ToUpper(ticket), "cut": ticket[:len(ticket)-4], "empty": "", "short": "AAAA", "no base64": "*", "padded": ticket + "=",
		"of another deployment": otherDeployment(t, actor),
	} {
		if _, ok, err := o.Stream(ctx, forged, "clinica-sol"); ok || err != nil {
			t.Errorf("%s: %v, %v", what, ok, err)
		}
	}
	actor.ExpiresAt = time.Now()
	if _, _, err := o.IssueStream(ctx, actor, "clinica-sol"); err == nil {
		t.Error("a ticket for a token that has ended")
	}
}

// otherDeployment is a ticket that has the same in it, of another deployment.
func otherDeployment(t *testing.T, actor domain.Actor) string {
	t.Helper()
	ticket, _, err := newOffice(t).IssueStream(t.Context(), actor, "clinica-sol")
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}
