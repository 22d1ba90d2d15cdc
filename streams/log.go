package streams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

var _ domain.Log = (*Log)(nil)

// Log is the log of all systems. It is safe for concurrent use.
type Log struct {
	config Config
	logger *slog.Logger
	keys   []keys
	sizers []pageSizer // by partition

	general   redis.UniversalClient // for reads and repeatable writes
	appender  redis.UniversalClient // for appends: sends nothing twice
	pipeline  *redis.AutoPipeliner  // of appender
	publisher *redisstream.Publisher

	verifying sync.Mutex      // held while prepare runs for a server that is not verified
	verified  map[string]bool // run ids of the servers that prepare has checked; guarded by verifying

	reading sync.Mutex
	readers map[int]*reader // by group; only those with consumers; guarded by reading
	outage  outage          // shared by the readers and consumers

	appends, appendErrors, entriesRead atomic.Uint64

	mu      sync.Mutex
	closed  bool
	working sync.WaitGroup // running Follows and appends
	closing context.Context
	close   context.CancelFunc
}

// Open connects to Redis, checks that the deployment was created with the same number of
// partitions, and ensures that every stream exists and stands at or past its archived position.
// ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	silenceRedisClient()
	l := &Log{
		config: cfg, logger: cfg.Logger, keys: make([]keys, cfg.Partitions), sizers: make([]pageSizer, cfg.Partitions),
		verified: map[string]bool{}, readers: map[int]*reader{}, outage: outage{logger: cfg.Logger},
	}
	for p := range l.keys {
		l.keys[p] = makeKeys(cfg.Prefix, p)
	}
	l.closing, l.close = context.WithCancel(context.Background())
	l.general = generalClient(cfg.Options)
	l.appender = appendClient(cfg.Options, l.verify)
	var err error
	if l.pipeline, err = autoPipeline(l.appender); err == nil {
		l.publisher, err = redisstream.NewPublisher(
			redisstream.PublisherConfig{Client: collectingClient{l.appender}, Marshaller: marshaller{}}, watermill.NopLogger{})
	}
	if err == nil {
		err = l.verifyServers(ctx)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("streams: open: %w", err)
	}
	l.warnUnlessDurable(ctx)
	return l, nil
}

// Close ends all Follows, waits for appends that were sent, and closes the connections. Later
// calls fail with [ErrClosed]. Closing twice is no error.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	l.close()
	l.working.Wait()
	return errors.Join(l.appender.Close(), l.general.Close())
}

// enter counts a goroutine that Close waits for, until leave. It returns false once the log is
// closed.
func (l *Log) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.working.Add(1)
	return true
}

func (l *Log) leave() { l.working.Done() }

// Partitions returns the number of partitions.
func (l *Log) Partitions() int { return len(l.keys) }

// Partition returns the partition of a system, from 0 to Partitions-1. It never changes.
func (l *Log) Partition(system domain.SystemID) int { return partitionOf(system, len(l.keys)) }

// Client returns a connection pool to the same Redis, for the packages beside the log. Close
// closes it.
func (l *Log) Client() redis.UniversalClient { return l.general }

// Slot returns the prefix of the keys of a partition. They share its slot of a cluster, so that
// one script can change several of them.
func (l *Log) Slot(partition int) string { return slotOf(l.config.Prefix, partition) }

// Prefix returns the prefix of every key of this deployment.
func (l *Log) Prefix() string { return l.config.Prefix }

// Stats counts what a [Log] has done since it was opened.
type Stats struct {
	Appends      uint64 // events appended
	AppendErrors uint64 // appends that failed; refusals are not counted
	EntriesRead  uint64 // entries that were read from Redis, counted once for all consumers
}

// Stats returns the counts. It is cheap.
func (l *Log) Stats() Stats {
	return Stats{Appends: l.appends.Load(), AppendErrors: l.appendErrors.Load(), EntriesRead: l.entriesRead.Load()}
}

// verifyTimeout bounds how long a new connection waits until every stream is checked.
const verifyTimeout = 10 * time.Second

// verify is called on each new connection for appends, before it is used. If the connection
// leads to a run of Redis that is not verified, Redis was restarted, replaced or failed over,
// and may have lost its newest entries. Then verify moves the streams past the archived
// positions before anything is appended.
func (l *Log) verify(_ context.Context, cn *redis.Conn) error {
	ctx, cancel := context.WithTimeout(l.closing, verifyTimeout)
	defer cancel()
	id, err := runID(ctx, cn)
	if err != nil {
		return &notReadyError{err}
	}
	l.verifying.Lock()
	defer l.verifying.Unlock()
	if l.verified[id] {
		return nil
	}
	if err := l.prepare(ctx); err != nil {
		return &notReadyError{err}
	}
	if len(l.verified) > 1000 {
		clear(l.verified)
	}
	l.verified[id] = true
	return nil
}

// verifyServers verifies the servers that are there when the log opens, so that the first
// append does not have to ask the archive, which may be down by then. It reads the run ids
// first: a server that restarts in between counts as not verified.
func (l *Log) verifyServers(ctx context.Context) error {
	ids, err := runIDs(ctx, l.general)
	if err != nil {
		return fmt.Errorf("read the run id of Redis: %w", err)
	}
	if err := l.prepare(ctx); err != nil {
		return err
	}
	l.verifying.Lock()
	defer l.verifying.Unlock()
	for _, id := range ids {
		l.verified[id] = true
	}
	return nil
}

// prepare checks that the deployment in Redis is the one that this process is configured for,
// and ensures that every stream exists and is at or past its floor.
func (l *Log) prepare(ctx context.Context) error {
	if err := l.checkPartitions(ctx); err != nil {
		return err
	}
	for p := range l.keys {
		floor, err := l.config.Floor(ctx, p)
		if err != nil {
			return fmt.Errorf("read how far partition %d is archived: %w", p, err)
		}
		if err := l.Ensure(ctx, p, floor); err != nil {
			return err
		}
	}
	return nil
}

// checkPartitions compares the number of partitions and the hash with those that the first Open
// stored in Redis.
func (l *Log) checkPartitions(ctx context.Context) error {
	key := l.config.Prefix + ":partitions"
	ours := fmt.Sprintf("%d %s", len(l.keys), hashName)
	if err := l.general.SetNX(ctx, key, ours, 0).Err(); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	theirs, err := l.general.Get(ctx, key).Result()
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if theirs == ours {
		return nil
	}
	count, hash, _ := strings.Cut(theirs, " ")
	return fmt.Errorf("this deployment was created with %s partitions (hash %s), and this process is set to %d (hash %s): "+
		"the number cannot change; set it to %s", count, hash, len(l.keys), hashName, count)
}
