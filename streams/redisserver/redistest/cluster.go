package redistest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/streams/childproc"
)

// slots is how many slots a Redis Cluster has.
const slots = 16384

// Cluster is a Redis Cluster of masters alone, which a test has for itself.
type Cluster struct {
	nodes []*redis.Client
	ids   []string
}

// NewCluster starts a cluster of so many masters, each with its even share of the
// slots. It is gone when the test ends.
func NewCluster(t testing.TB, masters int) *Cluster {
	t.Helper()
	c := &Cluster{}
	for n := range masters {
		node := startNode(t)
		ctx := t.Context()
		if err := node.ClusterAddSlotsRange(ctx, n*slots/masters, (n+1)*slots/masters-1).Err(); err != nil {
			t.Fatal(err)
		}
		id, err := node.Do(ctx, "cluster", "myid").Text()
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			c.meet(t, node)
		}
		c.nodes, c.ids = append(c.nodes, node), append(c.ids, id)
	}
	c.await(t)
	return c
}

// meet makes a node known to the first one.
func (c *Cluster) meet(t testing.TB, node *redis.Client) {
	t.Helper()
	host, port, _ := net.SplitHostPort(node.Options().Addr)
	bus, err := node.ConfigGet(t.Context(), "cluster-port").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[0].Do(t.Context(), "cluster", "meet", host, port, bus["cluster-port"]).Err(); err != nil {
		t.Fatal(err)
	}
}

// await waits until every node knows all others and serves.
func (c *Cluster) await(t testing.TB) {
	t.Helper()
	deadline := time.After(patience)
	for {
		agreed := 0
		for _, node := range c.nodes {
			info, err := node.ClusterInfo(t.Context()).Result()
			if err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r\n", len(c.nodes))) {
				agreed++
			}
		}
		if agreed == len(c.nodes) {
			return
		}
		select {
		case <-deadline:
			t.Fatal("redistest: the nodes do not become a cluster")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// URL is the URL of the cluster.
func (c *Cluster) URL() string {
	var addrs []string
	for _, node := range c.nodes {
		addrs = append(addrs, node.Options().Addr)
	}
	return "redis://" + strings.Join(addrs, ",") + "?cluster=true"
}

// Move moves the slot of a key, with all of its keys, to the next node, as an operator
// does that reshards.
func (c *Cluster) Move(t testing.TB, key string) {
	t.Helper()
	ctx := t.Context()
	slot, err := c.nodes[0].ClusterKeySlot(ctx, key).Result()
	if err != nil {
		t.Fatal(err)
	}
	owner := int(slot) * len(c.nodes) / slots
	for n, node := range c.nodes { // it may have moved before
		if keys, err := node.ClusterCountKeysInSlot(ctx, int(slot)).Result(); err == nil && keys > 0 {
			owner = n
		}
	}
	from, to := owner, (owner+1)%len(c.nodes)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.nodes[to].Do(ctx, "cluster", "setslot", slot, "importing", c.ids[from]).Err())
	must(c.nodes[from].Do(ctx, "cluster", "setslot", slot, "migrating", c.ids[to]).Err())
	host, port, _ := net.SplitHostPort(c.nodes[to].Options().Addr)
	for {
		keys, err := c.nodes[from].ClusterGetKeysInSlot(ctx, int(slot), 100).Result()
		must(err)
		if len(keys) == 0 {
			break
		}
		for _, k := range keys {
			must(c.nodes[from].Migrate(ctx, host, port, k, 0, patience).Err())
		}
	}
	for _, n := range []int{to, from} {
		must(c.nodes[n].Do(ctx, "cluster", "setslot", slot, "node", c.ids[to]).Err())
	}
}

func startNode(t testing.TB) *redis.Client {
	t.Helper()
	dir := current(t).folder("node")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	process, err := childproc.Start(ctx, childproc.Program{
		Name: "redis-server", Path: path, Dir: dir, Env: []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}, StopSignal: syscall.SIGTERM,
		Logger: slog.New(slog.DiscardHandler),
		Args: func(port int) []string {
			return []string{
				"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no",
				"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(freePort(t)), "--cluster-config-file", "nodes.conf",
			}
		},
		Ready: func(ctx context.Context, pid, port int) bool {
			client := redis.NewClient(&redis.Options{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))})
			defer client.Close()
			info, err := client.Info(ctx, "server").Result()
			return err == nil && strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", pid))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(process.Port()))})
	t.Cleanup(func() {
		_ = client.Close()
		if err := process.Kill(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// freePort returns a port for the bus of a node. The usual one, 10,000 above that for
// clients, may not exist.
func freePort(t testing.TB) int {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
