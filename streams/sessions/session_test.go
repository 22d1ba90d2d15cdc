package sessions

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func setup(t *testing.T) (*Sessions, *redis.Client) {
	t.Helper()
	options, err := redis.ParseURL(redistest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return New(client, "test"), client
}

func TestSessions(t *testing.T) {
	t.Parallel()
	here, client := setup(t)
	ctx, elsewhere := context.Background(), New(client, "test")

	if _, ok, err := here.Claim(ctx, "nobody", "h1"); ok || err != nil {
		t.Errorf("claimed what nobody saved: %v, %v", ok, err)
	}
	var ids []string
	for i := range batch + 1 { // more than one write keeps
		id := fmt.Sprint("client-", i)
		ids = append(ids, id)
		if ok, err := here.Save(ctx, id, "h1", []byte(id)); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := client.Expire(ctx, here.key(id), time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := elsewhere.Keep(ctx, append(ids, "nobody")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{ids[0], ids[batch]} {
		if left := client.TTL(ctx, here.key(id)).Val(); left < Lifetime-time.Minute {
			t.Errorf("%s is kept for %v", id, left)
		}
		if saved, ok, err := elsewhere.Claim(ctx, id, "h2"); string(saved) != id || !ok || err != nil {
			t.Errorf("claimed %q, %v, %v", saved, ok, err)
		}
	}
	if _, ok, _ := here.Claim(ctx, "nobody", "h1"); ok {
		t.Error("keeping made a session")
	}

	if ok, err := here.Save(ctx, ids[0], "h1", []byte("late")); ok || err != nil {
		t.Errorf("the holder before saved: %v, %v", ok, err)
	}
	if ok, err := elsewhere.Save(ctx, ids[0], "h2", []byte("new")); !ok || err != nil {
		t.Errorf("the holder cannot save: %v, %v", ok, err)
	}
	if saved, _, err := here.Claim(ctx, ids[0], "h3"); string(saved) != "new" || err != nil {
		t.Errorf("%q is saved, %v", saved, err)
	}
	if left := client.TTL(ctx, here.key(ids[0])).Val(); left <= 0 {
		t.Errorf("kept for %v", left)
	}
}

// Who comes back is there for a while: its session must not end before it is kept
// the next time.
func TestClaimKeeps(t *testing.T) {
	t.Parallel()
	s, client := setup(t)
	ctx := context.Background()
	if _, err := s.Save(ctx, "client", "h1", []byte("saved")); err != nil {
		t.Fatal(err)
	}
	if err := client.Expire(ctx, s.key("client"), time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Claim(ctx, "client", "h2"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if left := client.TTL(ctx, s.key("client")).Val(); left < Lifetime-time.Minute {
		t.Errorf("kept for %v", left)
	}
}

// What is under the key of a session and is none does not turn its client away.
func TestClaimOfWhatIsNoSession(t *testing.T) {
	t.Parallel()
	s, client := setup(t)
	ctx := context.Background()
	if err := client.Set(ctx, s.key("text"), "saved", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.HSet(ctx, s.key("half"), "holder", "h1").Err(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"text", "half"} {
		if saved, ok, err := s.Claim(ctx, id, "h2"); ok || err != nil {
			t.Errorf("%s: claimed %q, %v, %v", id, saved, ok, err)
		}
	}
}
