package redistest_test

import (
	"testing"

	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// Every caller has a database of its own, empty at first, even when another
// test used that number before.
func TestURLIsAnEmptyDatabaseOfOnesOwn(t *testing.T) {
	t.Parallel()
	one, two := redistest.Connect(t, redistest.URL(t)), redistest.Connect(t, redistest.URL(t))
	if err := one.Set(t.Context(), "key", "one", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := two.DBSize(t.Context()).Result(); err != nil || n != 0 {
		t.Fatalf("another test's database has %d keys, error %v; want none", n, err)
	}
}

func TestURLIsEmptiedForTheNextTest(t *testing.T) {
	t.Parallel()
	used := make(map[string]bool)
	for range 220 { // more than there are databases
		t.Run("", func(t *testing.T) {
			url := redistest.URL(t)
			client := redistest.Connect(t, url)
			if n, err := client.DBSize(t.Context()).Result(); err != nil || n != 0 {
				t.Fatalf("the database has %d keys, error %v; want none", n, err)
			}
			if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
				t.Fatal(err)
			}
			used[url] = true
		})
	}
	if len(used) >= 220 {
		t.Fatal("no database was used again")
	}
}

func TestRestartKeepsDataAndAddress(t *testing.T) {
	t.Parallel()
	server := redistest.New(t)
	client := redistest.Connect(t, server.URL())
	if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Fatal(err)
	}
	again := redistest.Restart(t, server)
	if again.URL() != server.URL() {
		t.Errorf("restarted at %s, was at %s", again.URL(), server.URL())
	}
	if got, err := redistest.Connect(t, again.URL()).Get(t.Context(), "key").Result(); err != nil || got != "value" {
		t.Errorf("after a kill: key = %q, error %v", got, err)
	}
}
