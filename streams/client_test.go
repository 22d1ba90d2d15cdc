package streams

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

// A read that blocks without limit returns when it is unblocked.
func TestUnblock(t *testing.T) {
	t.Parallel()
	general := redistest.Connect(t, redistest.URL(t))
	var id atomic.Int64
	client, err := blockingClient(t.Context(), general, "a", func(connection int64) { id.Store(connection) })
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	done := make(chan error, 1)
	go func() {
		done <- client.Do(context.Background(), "xread", "block", 0, "streams", "a", "$").Err()
	}()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case err := <-done:
			if !errors.Is(err, redis.Nil) {
				t.Errorf("the read ended with %v", err)
			}
			return
		case <-deadline:
			t.Fatal("the read still blocks")
		case <-time.After(time.Millisecond):
			unblock(t.Context(), general, "a", id.Load())
		}
	}
}
