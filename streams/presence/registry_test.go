package presence

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// node is a registry that runs until stop is called.
type node struct {
	*Registry
	stop func()
}

func startNode(t *testing.T, url, name string) node {
	client := redistest.Connect(t, url)
	r := New(client, "test", name, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		_ = r.Run(ctx, func() json.RawMessage { return json.RawMessage(`{"name":"` + name + `"}`) })
	})
	stop := sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return node{r, stop}
}

func (n node) listed(t *testing.T, by func(domain.Socket) bool) int {
	count := 0
	for after, more := "", true; more; more = after != "" {
		var sockets []domain.Socket
		var err error
		if sockets, after, err = n.Page(t.Context(), nil, after, 500); err != nil {
			t.Fatal(err)
		}
		for _, s := range sockets {
			if by(s) {
				count++
			}
		}
	}
	return count
}

func all(domain.Socket) bool { return true }

func TestSocketsOfAllNodes(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	a, b := startNode(t, url, "a"), startNode(t, url, "b")
	const many = 1200
	for i := range many {
		a.Put(domain.Socket{SocketID: fmt.Sprint("a", i), Face: "ws", Systems: []domain.SystemID{"clinica-sol"}, ConnectedAt: time.Now()})
	}
	b.Put(domain.Socket{SocketID: "b0", Face: "sse", ConnectedAt: time.Now()})
	testpeer.Eventually(t, "every socket is seen from the other node", func() bool { return b.listed(t, all) == many+1 })

	a.Put(domain.Socket{SocketID: "a0", Face: "ws", Systems: []domain.SystemID{"centro-luna"}})
	a.Remove("a1")
	testpeer.Eventually(t, "changes are seen", func() bool {
		moved := b.listed(t, func(s domain.Socket) bool {
			return len(s.Systems) == 1 && s.Systems[0] == "centro-luna" && s.Node == "a"
		})
		return moved == 1 && b.listed(t, all) == many
	})
	if own := len(b.Own()); own != 1 {
		t.Errorf("b has %d own sockets", own)
	}

	a.stop()
	testpeer.Eventually(t, "a node that left is gone with its sockets", func() bool { return b.listed(t, all) == 1 })
	nodes, err := b.Nodes(t.Context())
	if err != nil || len(nodes) != 1 || string(nodes["b"]) != `{"name":"b"}` {
		t.Errorf("nodes %s, %v", nodes, err)
	}
}

// A wiped registry fills itself again.
func TestBoardIsWrittenAgain(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	a := startNode(t, url, "a")
	a.Put(domain.Socket{SocketID: "a0"})
	testpeer.Eventually(t, "it is listed", func() bool { return a.listed(t, all) == 1 })
	if err := a.client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	testpeer.Eventually(t, "it is listed again", func() bool { return a.listed(t, all) == 1 })
}

// lastBeat sets the time of a node's last write to this many seconds ago.
func (n node) lastBeat(t *testing.T, name string, ago time.Duration) {
	t.Helper()
	now, err := n.client.Time(t.Context()).Result()
	if err == nil {
		err = n.client.ZAdd(t.Context(), n.nodesKey(), redis.Z{Score: float64(now.Add(-ago).Unix()), Member: name}).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (n node) expects(t *testing.T, asOf time.Time) string {
	t.Helper()
	live, missing, err := n.Expected(t.Context(), asOf)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(live, missing)
}

// A node that stopped writing is expected for a while longer. A node that left in order is not.
func TestExpected(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	b, a := startNode(t, url, "b"), startNode(t, url, "a")
	testpeer.Eventually(t, "both live", func() bool { return a.expects(t, time.Time{}) == "[a b] []" })
	a.lastBeat(t, "frozen", TTL+5*time.Second)
	a.lastBeat(t, "dead", Missed)
	a.lastBeat(t, "long-gone", TTL+Missed+5*time.Second)
	if got := a.expects(t, time.Time{}); got != "[a b] [dead frozen]" {
		t.Errorf("expected %s", got)
	}
	if nodes, err := a.Nodes(t.Context()); err != nil || len(nodes) != 2 {
		t.Errorf("listed %s (%v), although missing nodes are not listed", nodes, err)
	}
	b.stop()
	if got := a.expects(t, time.Time{}); got != "[a] [dead frozen]" {
		t.Errorf("after b left in order, expected %s", got)
	}
	testpeer.Eventually(t, "a forgotten node leaves nothing behind", func() bool {
		return a.client.ZScore(t.Context(), a.nodesKey(), "long-gone").Err() == redis.Nil
	})
}

// A node that joined after a command was given is not expected to answer it. A new process with
// the name of an earlier one joins again.
func TestExpectedAsOf(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	a := startNode(t, url, "a")
	since := func(name string) (at int64) {
		at, _ = a.client.HGet(t.Context(), a.joinedKey(), name).Int64()
		return at
	}
	testpeer.Eventually(t, "a has joined", func() bool { return since("a") > 0 })
	between := time.UnixMilli(since("a"))
	testpeer.Eventually(t, "time goes on", func() bool {
		now, err := a.client.Time(t.Context()).Result()
		return err == nil && now.UnixMilli() > between.UnixMilli()
	})
	beating := func() *Registry { return New(a.client, "test", "b", slog.New(slog.DiscardHandler)) }
	b := beating()
	b.beat(t.Context(), json.RawMessage(`{}`))
	if got := a.expects(t, time.Time{}); got != "[a b] []" {
		t.Errorf("expected %s", got)
	}
	if got := a.expects(t, between); got != "[a] []" {
		t.Errorf("as of before b, expected %s", got)
	}
	first := since("b")
	for since("b") == first {
		// Another beat of the same process changes nothing. Only the beat of a new process ends
		// the loop.
		b.beat(t.Context(), json.RawMessage(`{}`))
		if again := since("b"); again != first {
			t.Fatalf("b joined at %d, and at %d", first, again)
		}
		beating().beat(t.Context(), json.RawMessage(`{}`))
	}
	if since("b") < first {
		t.Error("a new process of the same name joined before it began")
	}
}
