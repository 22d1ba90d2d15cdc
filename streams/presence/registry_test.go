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
)

func TestMain(m *testing.M) { redistest.Main(m) }

// node is a registry that runs until stop.
type node struct {
	*Registry
	stop func()
}

func startNode(t *testing.T, url, name string) node {
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
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
	t.Cleanup(func() {
		stop()
		_ = client.Close()
	})
	return node{r, stop}
}

// eventually waits for a condition that others bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("did not happen: %s", what)
		case <-poll.C:
		}
	}
}

func (n node) listed(t *testing.T, by func(Socket) bool) int {
	sockets, err := n.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, s := range sockets {
		if by(s) {
			count++
		}
	}
	return count
}

func all(Socket) bool { return true }

func TestSocketsOfAllNodes(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	a, b := startNode(t, url, "a"), startNode(t, url, "b")
	const many = 1200
	for i := range many {
		a.Put(Socket{SocketID: fmt.Sprint("a", i), Face: "ws", Systems: []domain.SystemID{"clinica-sol"}, ConnectedAt: time.Now()})
	}
	b.Put(Socket{SocketID: "b0", Face: "sse", ConnectedAt: time.Now()})
	eventually(t, "every socket is seen from the other node", func() bool { return b.listed(t, all) == many+1 })

	a.Put(Socket{SocketID: "a0", Face: "ws", Systems: []domain.SystemID{"centro-luna"}})
	a.Remove("a1")
	eventually(t, "changes are seen", func() bool {
		moved := b.listed(t, func(s Socket) bool { return len(s.Systems) == 1 && s.Systems[0] == "centro-luna" && s.Node == "a" })
		return moved == 1 && b.listed(t, all) == many
	})
	if own := len(b.Own()); own != 1 {
		t.Errorf("b has %d sockets of its own", own)
	}

	a.stop()
	eventually(t, "a node that left is gone with its sockets", func() bool { return b.listed(t, all) == 1 })
	nodes, err := b.Nodes(t.Context())
	if err != nil || len(nodes) != 1 || string(nodes["b"]) != `{"name":"b"}` {
		t.Errorf("nodes %s, %v", nodes, err)
	}
}

// A board that was wiped fills itself again.
func TestBoardIsWrittenAgain(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	a := startNode(t, url, "a")
	a.Put(Socket{SocketID: "a0"})
	eventually(t, "it is listed", func() bool { return a.listed(t, all) == 1 })
	if err := a.client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is listed again", func() bool { return a.listed(t, all) == 1 })
}
