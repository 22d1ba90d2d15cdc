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
	// replyTimeout bounds one round trip: with appendfsync always Redis answers
	// after the disk, and a slow disk is no reason to doubt an append.
	replyTimeout = 5 * time.Second
	// maxQueued bounds the appends that wait for Redis in this process. More
	// are refused at once.
	maxQueued = 1 << 16
)

// quieten stops go-redis from writing to standard error of its own accord. What
// goes wrong is in the errors that it returns, and logged by us, once.
var quieten = sync.OnceFunc(func() { redis.SetLogger(&logging.VoidLogger{}) })

// baseOptions are what all clients share.
func baseOptions(from *redis.UniversalOptions) redis.UniversalOptions {
	o := *from
	o.Protocol = 2 // the raw replies that we decode have one shape for old and new servers
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = dialTimeout, replyTimeout, replyTimeout
	o.DialerRetries = 1
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return o
}

// generalClient is for everything that may be repeated: reads, trims, and the
// packages beside the log.
func generalClient(from *redis.UniversalOptions) redis.UniversalClient {
	o := baseOptions(from)
	o.ContextTimeoutEnabled = true
	return redis.NewUniversalClient(&o)
}

// appendClient never repeats what it has sent: an XADD that was repeated after
// a broken connection would be there twice. MaxRetries says so for one server;
// a cluster client has rules of its own, which [once] is for.
func appendClient(from *redis.UniversalOptions, met func(context.Context, *redis.Conn) error) redis.UniversalClient {
	o := baseOptions(from)
	o.MaxRetries = -1
	o.PipelineWriteBufferSize = 256 << 10
	o.OnConnect = met
	return redis.NewUniversalClient(&o)
}

// autoPipeline lets concurrent appends share a round trip and an fsync. The
// asynchronous face is the one that can stop waiting when a context ends.
func autoPipeline(client redis.UniversalClient) (*redis.AutoPipeliner, error) {
	return client.AsyncAutoPipelineWithOptions(&redis.AutoPipelineOptions{
		MaxBatchSize:         500,
		MaxBatchBytes:        512 << 10,
		MaxConcurrentBatches: 1,
		MaxQueuedCommands:    maxQueued,
	})
}

// once is a command that a cluster client must not send again when the
// connection broke after it was written. Redirections, which say that nothing
// was done, are still followed.
type once struct{ *redis.Cmd }

// NoRetry overrides the method of the command inside.
func (once) NoRetry() bool { return true }

func newOnce(ctx context.Context, args ...any) once { return once{redis.NewCmd(ctx, args...)} }

// informer is a connection to one server, or a client of it.
type informer interface {
	Info(ctx context.Context, sections ...string) *redis.StringCmd
}

// runIDs reads which runs of which servers take appends: one, or each master of
// a cluster.
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

// runID reads which run of which server is at the other end.
func runID(ctx context.Context, server informer) (string, error) {
	info, err := server.Info(ctx, "server").Result()
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(info, "\nrun_id:")
	id, _, found := strings.Cut(rest, "\r")
	if !found || id == "" {
		return "", fmt.Errorf("INFO says no run_id")
	}
	return id, nil
}

// blockingClient returns a client with one connection, to the server that has
// the key: closing it interrupts a read that blocks, and so does [unblock]. connected is
// given the id of each connection, 0 when the server does not tell.
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

// unblock makes a read that blocks on a connection return as if its time was over. It
// does nothing where no read blocks, so the caller repeats it until it has what it
// wants. A server that does not allow it lets the caller wait for [blockFor].
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
	return nil, fmt.Errorf("a %T cannot be read from", general)
}
