package claims_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/claims"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// Several processes can take a command, or one can close it, never both. Claims expire.
func TestClaims(t *testing.T) {
	t.Parallel()
	const sol, luna domain.SystemID = "clinica-sol", "centro-luna"
	url := redistest.URL(t)
	open := func() (*claims.Store, redis.UniversalClient) {
		log, err := streams.Open(t.Context(), streams.Config{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() })
		return claims.New(log), log.Client()
	}
	here, client := open()
	there, _ := open()
	for i, step := range []struct {
		claim  func() (bool, error)
		wanted bool
	}{
		{func() (bool, error) { return here.Take(t.Context(), sol, "c1") }, true},
		{func() (bool, error) { return there.Take(t.Context(), sol, "c1") }, true},
		{func() (bool, error) { return there.Close(t.Context(), sol, "c1") }, false},
		{func() (bool, error) { return there.Close(t.Context(), sol, "c2") }, true},
		{func() (bool, error) { return here.Close(t.Context(), sol, "c2") }, true},
		{func() (bool, error) { return here.Take(t.Context(), sol, "c2") }, false},
		{func() (bool, error) { return here.Take(t.Context(), luna, "c2") }, true},
	} {
		if ok, err := step.claim(); ok != step.wanted || err != nil {
			t.Errorf("step %d: %t, %v", i, ok, err)
		}
	}
	keys, err := client.Keys(t.Context(), "*:claim:*").Result()
	if err != nil || len(keys) != 3 {
		t.Fatalf("%v, %v", keys, err)
	}
	for _, key := range keys {
		if left := client.PTTL(t.Context(), key).Val(); left <= 0 || left > claims.Lifetime {
			t.Errorf("%s is kept for %v", key, left)
		}
	}
}
