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

func TestSessions(t *testing.T) {
	t.Parallel()
	options, err := redis.ParseURL(redistest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	ctx := context.Background()
	here, elsewhere := New(client, "test"), New(client, "test")

	if _, ok, err := here.Load(ctx, "nobody"); ok || err != nil {
		t.Errorf("loaded what nobody saved: %v, %v", ok, err)
	}
	var ids []string
	for i := range batch + 1 { // more than one write keeps
		id := fmt.Sprint("client-", i)
		ids = append(ids, id)
		if err := here.Save(ctx, id, []byte(id)); err != nil {
			t.Fatal(err)
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
		if saved, ok, err := elsewhere.Load(ctx, id); string(saved) != id || !ok || err != nil {
			t.Errorf("loaded %q, %v, %v", saved, ok, err)
		}
	}
	if _, ok, _ := here.Load(ctx, "nobody"); ok {
		t.Error("keeping made a session")
	}
}
