package streams

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	dialTimeout = 2 * time.Second
	// replyTimeout bounds one round trip. With appendfsync always Redis answers after its disk,
	// and a slow disk is no reason to doubt an append.
	replyTimeout = 5 * time.Second
	// maxQueued bounds the appends of this process that wait for Redis. Further appends are
	// refused at once.
	maxQueued = 1 << 16
)

// silenceRedisClient stops go-redis from writing to standard error. It also returns its errors,
// and we log those once.
var silenceRedisClient = sync.OnceFunc(func() { redis.SetLogger(&logging.VoidLogger{}) })

// baseOptions returns the options that all clients share.
func baseOptions(from *redis.UniversalOptions) redis.UniversalOptions {
	o := *from
	o.Protocol = 2 // its raw replies have the same form with old and new servers
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = dialTimeout, replyTimeout, replyTimeout
	o.DialerRetries = 1
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return o
}

// generalClient returns the client for everything that may be repeated: reads, trims, and the
// packages beside the log.
func generalClient(from *redis.UniversalOptions) redis.UniversalClient {
	o := baseOptions(from)
	o.ContextTimeoutEnabled = true
	return redis.NewUniversalClient(&o)
}

// appendClient returns a client that never repeats what it has sent: an XADD that is repeated
// after a broken connection would be in the stream twice. MaxRetries ensures that for one
// server; a cluster client has its own rules, which [attempt] overrides. connected is called on
// each new connection.
func appendClient(from *redis.UniversalOptions, connected func(context.Context, *redis.Conn) error) redis.UniversalClient {
	o := baseOptions(from)
	o.MaxRetries = -1
	o.PipelineWriteBufferSize = 256 << 10
	o.OnConnect = connected
	return redis.NewUniversalClient(&o)
}

// autoPipeline lets concurrent appends share a round trip and an fsync. Only its asynchronous
// form can stop waiting when a context ends.
func autoPipeline(client redis.UniversalClient) (*redis.AutoPipeliner, error) {
	return client.AsyncAutoPipelineWithOptions(&redis.AutoPipelineOptions{
		MaxBatchSize:         500,
		MaxBatchBytes:        512 << 10,
		MaxConcurrentBatches: 1,
		MaxQueuedCommands:    maxQueued,
	})
}

// attempt is a command that a cluster client must not send again after the connection broke.
// The client still follows redirections, which mean that nothing was done.
type attempt struct{ *redis.Cmd }

// NoRetry overrides the method of the command inside.
func (attempt) NoRetry() bool { return true }

func newAttempt(ctx context.Context, args ...any) attempt { return attempt{redis.NewCmd(ctx, args...)} }

// informer is a connection to one server, or a client of it.
type informer interface {
	Info(ctx context.Context, sections ...string) *redis.StringCmd
}

// runIDs returns the run ids of the servers that take appends: one server, or each master of a
// cluster.
func runIDs(ctx context.Context, client redis.UniversalClient) ([]string, error) {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		id, err := runID(ctx, client)
		return []string{id}, err
	}
	var mu sync.Mutex
	var ids []string
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error { // concurrently
		id, err := runID(ctx, master)
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// runID returns the run id of the server at the other end. It changes when the server restarts.
func runID(ctx context.Context, server informer) (string, error) {
	info, err := server.Info(ctx, "server").Result()
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(info, "\nrun_id:")
	id, _, found := strings.Cut(rest, "\r")
	if !found || id == "" {
		return "", fmt.Errorf("INFO has no run_id")
	}
	return id, nil
}

// blockingClient returns a client with one connection, to the server that has the key. Closing
// the client interrupts a blocking read, and so does [unblock]. connected is called with the id
// of each connection, 0 if the server does not report it.
func blockingClient(ctx context.Context, general redis.UniversalClient, key string, connected func(id int64)) (*redis.Client, error) {
	node, err := nodeOf(ctx, general, key)
	if err != nil {
		return nil, err
	}
	o := *node.Options()
	o.PoolSize, o.PipelinePoolSize = 1, -1
	o.MaxRetries = -1
	o.ContextTimeoutEnabled = false
	o.ReadTimeout = blockFor + replyTimeout
	o.OnConnect = func(ctx context.Context, cn *redis.Conn) error {
		connected(cn.ClientID(ctx).Val())
		return nil
	}
	return redis.NewClient(&o), nil
}

// unblock makes a blocking read on a connection return as if its time was over. It does nothing
// if no read blocks, so the caller repeats it until it has the result that it wants. If the
// server does not allow it, the read lasts up to [blockFor].
func unblock(ctx context.Context, general redis.UniversalClient, key string, id int64) {
	if node, err := nodeOf(ctx, general, key); err == nil {
		_ = node.ClientUnblock(ctx, id)
	}
}

// nodeOf returns the client of the server that has a key.
func nodeOf(ctx context.Context, general redis.UniversalClient, key string) (*redis.Client, error) {
	switch c := general.(type) {
	case *redis.Client:
		return c, nil
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, key)
	}
	return nil, fmt.Errorf("cannot read with a %T", general)
}
