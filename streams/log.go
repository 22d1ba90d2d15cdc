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

// Log is the log. It is safe for concurrent use.
type Log struct {
	config    Config
	logger    *slog.Logger
	keys      []keys
	appetites []appetite // by partition

	general   redis.UniversalClient // reads and repeatable writes
	appender  redis.UniversalClient // appends: sends nothing twice
	pipeline  *redis.AutoPipeliner  // of appender
	publisher *redisstream.Publisher

	verifying sync.Mutex      // held while prepare runs for a Redis that is new to us
	verified  map[string]bool // runs of Redis that prepare has looked at; guarded by verifying

	reading sync.Mutex
	readers map[int]*reader // by group, those with consumers; guarded by reading
	outage  outage          // of the readers and consumers

	appends, appendErrors, entriesRead atomic.Uint64

	mu      sync.Mutex
	closed  bool
	working sync.WaitGroup // follows and appends that run
	closing context.Context
	close   context.CancelFunc
}

// Open connects to Redis, checks that the deployment was created with the same
// number of partitions, and makes sure that every stream exists and stands at or
// past what is archived. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	silenceRedisClient()
	l := &Log{
		config: cfg, logger: cfg.Logger, keys: make([]keys, cfg.Partitions), appetites: make([]appetite, cfg.Partitions), verified: map[string]bool{},
		readers: map[int]*reader{},
		outage:  outage{logger: cfg.Logger},
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

// Close ends all follows, waits for appends that were sent, and closes the
// connections. Later calls fail. Closing twice is no error.
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

// enter counts a goroutine that Close waits for. It says false once the log is
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

// Partitions is the number of partitions.
func (l *Log) Partitions() int { return len(l.keys) }

// Partition is where a system's events are, from 0 to Partitions-1. It never
// changes.
func (l *Log) Partition(system domain.SystemID) int { return partitionOf(system, len(l.keys)) }

// Client is a connection pool to the same Redis, for the packages beside the
// log. It lives until Close.
func (l *Log) Client() redis.UniversalClient { return l.general }

// Slot begins the keys that belong to a partition: they share its slot of a
// cluster, so that one script can change several of them.
func (l *Log) Slot(partition int) string { return slotOf(l.config.Prefix, partition) }

// Prefix begins every key of this deployment.
func (l *Log) Prefix() string { return l.config.Prefix }

// Stats counts what a [Log] has done since it was opened.
type Stats struct {
	Appends      uint64 // events appended
	AppendErrors uint64 // appends that failed; a condition that did not hold is none
	EntriesRead  uint64 // entries that were read from Redis, once for all that follow
}

// Stats returns the counts. It costs next to nothing.
func (l *Log) Stats() Stats {
	return Stats{Appends: l.appends.Load(), AppendErrors: l.appendErrors.Load(), EntriesRead: l.entriesRead.Load()}
}

// verifyTimeout bounds what a new connection has to wait for until every stream
// was looked at.
const verifyTimeout = 10 * time.Second

// meet is called on each new connection for appends, before it is used. If it
// leads to a run of Redis that we have not met, Redis was restarted, replaced or
// failed over, and may have lost its newest entries: then the streams are set
// past what is archived before anything can be appended.
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

// greet prepares the Redis that is there when the log opens. It counts as having
// met it: the first append has nothing left to ask the archive, which may be down
// by then. The runs are read first, so that one which begins meanwhile is not
// taken for one that was looked at.
func (l *Log) verifyServers(ctx context.Context) error {
	ids, err := runIDs(ctx, l.general)
	if err != nil {
		return fmt.Errorf("ask Redis which run it is: %w", err)
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

// prepare makes a Redis fit to append to: the deployment is the one that we are
// configured for, and every stream exists and is at or past its floor.
func (l *Log) prepare(ctx context.Context) error {
	if err := l.checkPartitions(ctx); err != nil {
		return err
	}
	for p := range l.keys {
		floor, err := l.config.Floor(ctx, p)
		if err != nil {
			return fmt.Errorf("how far partition %d is archived: %w", p, err)
		}
		if err := l.Ensure(ctx, p, floor); err != nil {
			return err
		}
	}
	return nil
}

// checkPartitions stores, with the first opening, how systems are spread over
// partitions, and compares it ever after.
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
