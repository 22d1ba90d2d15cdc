package streams

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// maxPerReader is how many partitions one blocking read is over. Redis looks at each of
// them for every read.
const maxPerReader = 64

// nudgeTimeout bounds what a consumer spends on making the reader look up.
const nudgeTimeout = time.Second

// reader reads the partitions of one group for all consumers in this process: with
// one blocking XREAD at a time over those that somebody follows, decoding each entry
// once. It begins at the end of a partition, because consumers read what is older on
// their own, and it never waits for a consumer.
//
// It also watches whether a partition goes on without a gap. Where it does not, or that
// is not certain, the reader cuts its consumers off and begins again at the end; each
// consumer finds out by the next page whether it lost anything.
//
// Lock order: Log.reading, reader.mu, consumer.mu. None is held during I/O.
type reader struct {
	log   *Log
	stop  context.CancelFunc
	added chan struct{} // has a value when a partition was added, or is to be looked at

	connection atomic.Int64 // id of the connection that reads, 0 when not known

	// Of the reader's goroutine. They outlive its connections.
	appetite appetite
	behind   int // how many partitions may have more than the last read brought

	mu     sync.Mutex
	parts  map[int]*part // by partition; only those with consumers
	sorted []*part       // the same in order, nil after a change; never changed in place
}

// part is one partition of a reader. Its consumers are guarded by reader.mu. All else
// is written by the reader's goroutine alone, under that lock.
type part struct {
	partition int
	consumers map[*consumer]struct{}

	// readable says that the reader has begun with the partition, and that Redis does not
	// refuse to read it. What follows has no meaning otherwise.
	readable    bool
	at          domain.Position // read up to here
	id          string          // at, as Redis writes it
	begins      string          // the origin that was found to fit at last
	seen        bool            // at is the position of an entry that was there
	incarnation string          // of the stream
	epoch       int             // grows when the reader begins again elsewhere

	confirmed time.Time // when it was last certain that this is so
}

// group returns which reader reads a partition. A read can be over several streams
// where one server has them all; in a cluster each has a slot of its own.
func (l *Log) group(partition int) int {
	if _, isCluster := l.general.(*redis.ClusterClient); isCluster {
		return partition
	}
	return partition / maxPerReader
}

// attach gives a consumer to the reader of its partition, which runs while it has
// consumers. detach must follow.
func (l *Log) attach(c *consumer) *reader {
	l.reading.Lock()
	defer l.reading.Unlock()
	group := l.group(c.partition)
	if r := l.readers[group]; r != nil {
		r.add(c)
		return r
	}
	ctx, cancel := context.WithCancel(l.closing)
	r := &reader{log: l, stop: cancel, added: make(chan struct{}, 1), parts: map[int]*part{}}
	r.add(c)
	l.readers[group] = r
	l.working.Go(func() { // Close does not wait yet, because it waits for the consumer
		defer cancel()
		isolate.Loop(ctx, l.logger, "reader of the log", func() { r.run(ctx) })
	})
	return r
}

func (l *Log) detach(c *consumer) {
	l.reading.Lock()
	defer l.reading.Unlock()
	if r := c.reader; r.remove(c) {
		delete(l.readers, l.group(c.partition))
		r.stop()
	}
}

func (r *reader) add(c *consumer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parts[c.partition]
	if p == nil {
		p = &part{partition: c.partition, consumers: map[*consumer]struct{}{}}
		r.parts[c.partition], r.sorted = p, nil
		signal(r.added)
	}
	p.consumers[c] = struct{}{}
}

// remove reports whether no consumer is left.
func (r *reader) remove(c *consumer) (idle bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.parts[c.partition]; p != nil {
		if delete(p.consumers, c); len(p.consumers) == 0 {
			delete(r.parts, c.partition)
			r.sorted = nil
		}
	}
	return len(r.parts) == 0
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// join makes the reader offer its batches to a consumer from where it is, if both read
// the same stream and the consumer is not ahead. The consumer's goroutine calls it.
func (r *reader) join(c *consumer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parts[c.partition]
	if !p.readable || p.incarnation != c.incarnation {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handover.join(p.at)
}

// nudge makes the reader look at a consumer's partition if that is why the consumer
// could not join: the reader does not know the partition yet, or not its new stream.
func (r *reader) nudge(ctx context.Context, c *consumer) {
	r.mu.Lock()
	p := r.parts[c.partition]
	fine := p.readable && p.incarnation == c.incarnation
	r.mu.Unlock()
	if fine {
		return
	}
	signal(r.added)
	if id := r.connection.Load(); id != 0 {
		ctx, cancel := context.WithTimeout(ctx, nudgeTimeout)
		defer cancel()
		unblock(ctx, r.log.general, r.log.keys[c.partition].events, id)
	}
}

// list returns the partitions that are read, in order.
func (r *reader) list() []*part {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sorted == nil {
		r.sorted = slices.SortedFunc(maps.Values(r.parts), func(a, b *part) int { return a.partition - b.partition })
	}
	return r.sorted
}

// run reads over one connection after the other until ctx ends.
func (r *reader) run(ctx context.Context) {
	retry, away := backoff.Backoff{First: firstPause, Max: maxPause}, false
	defer func() {
		if away {
			r.log.outage.stopped()
		}
	}()
	for {
		worked := false
		err := r.connect(ctx, func() {
			if away {
				r.log.outage.reconnected(r.attr())
			}
			worked, away = true, false
			retry.Reset()
		})
		if ctx.Err() != nil {
			return
		}
		if !worked { // it is not only this connection that broke
			r.leaveAll()
		}
		if !away {
			r.log.outage.disconnected(r.attr(), err)
			away = true
		}
		if retry.Wait(ctx) != nil {
			return
		}
	}
}

// attr says in a log line what is read.
func (r *reader) attr() slog.Attr {
	var partitions []int
	for _, p := range r.list() {
		partitions = append(partitions, p.partition)
	}
	return slog.Any("partitions", partitions)
}

// connect reads until an error. It calls working once a read that blocks has worked:
// that one which does not block works proves little.
func (r *reader) connect(ctx context.Context, working func()) error {
	parts := r.list()
	if len(parts) == 0 { // the last consumer is about to stop the reader
		<-ctx.Done()
		return ctx.Err()
	}
	defer r.connection.Store(0)
	var dials atomic.Int64
	client, err := blockingClient(ctx, r.log.general, r.log.keys[parts[0].partition].events, func(id int64) {
		dials.Add(1)
		r.connection.Store(id)
	})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = client.Close() }) // interrupts a read that blocks
	defer func() {
		if stop() {
			_ = client.Close()
		}
	}()
	x := xread{reader: r, client: client, dials: &dials}
	if err := x.once(ctx, 0); err != nil { // verifies everything before the first wait
		return err
	}
	for told := false; ctx.Err() == nil; {
		if err := x.once(ctx, blockFor); err != nil {
			return err
		}
		if x.blocked && !told {
			working()
			told = true
		}
	}
	return ctx.Err()
}

// verify looks at partitions, and begins again at the end of those that do not go on
// from where the reader is, or are new. It fails when Redis cannot be asked.
//
// A stream that is missing is not repaired here: that asks the archive, and one that
// hangs would stop all partitions. The pages of its consumers repair it.
func (r *reader) verify(ctx context.Context, parts []*part) error {
	if len(parts) == 0 {
		return nil
	}
	partitions, at := make([]int, len(parts)), make([]domain.Position, len(parts))
	for i, p := range parts {
		partitions[i], at[i] = p.partition, p.at
	}
	states, err := r.log.inspectPartitions(ctx, partitions, at)
	if err != nil {
		return err
	}
	for i, p := range parts {
		if err := states[i].err; err != nil && p.readable {
			r.log.logger.Debug("a partition cannot be read", "partition", p.partition, "error", err)
		}
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, p := range parts {
		p.confirmed = now
		switch there := &states[i]; {
		case there.err != nil:
			p.leave()
			if errors.Is(there.err, errMissing) {
				p.confirmed = time.Time{} // look again soon
			}
		case !p.readable, p.incarnation != there.origin.incarnation, there.follows(p.at, p.seen, p.incarnation) != nil:
			p.readable, p.at, p.seen, p.incarnation = true, there.last, there.newest, there.origin.incarnation
			p.id, p.begins = p.at.String(), ""
			p.epoch++
			p.cut()
		}
	}
	return nil
}

// leave makes the consumers read on their own until the reader has begun with the
// partition again. The caller holds reader.mu.
func (p *part) leave() {
	if p.readable {
		p.readable = false
		p.cut()
	}
}

// fail leaves a partition of which the reader cannot decode what it read, until it is
// looked at again: the reader then begins behind that.
func (r *reader) fail(p *part, err error) {
	r.log.logger.Error("the log's reader cannot decode what it read", "partition", p.partition, "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	p.confirmed = time.Now()
	p.leave()
}

// leaveAll is leave for all partitions, which are looked at as soon as that is possible.
func (r *reader) leaveAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.parts {
		p.confirmed = time.Time{}
		p.leave()
	}
}

// cut cuts all consumers off. The caller holds reader.mu.
func (p *part) cut() {
	for c := range p.consumers {
		c.cut()
	}
}

// due returns those that nothing is known of, or nothing was heard of lately.
func due(parts []*part) (due []*part) {
	now := time.Now()
	for _, p := range parts {
		if now.Sub(p.confirmed) >= blockFor {
			due = append(due, p)
		}
	}
	return due
}

// count is how many entries a read over so many partitions asks of each. Partitions
// that are behind share the reader's appetite. The others bring little, and have no
// part in it: one busy partition among 64 would otherwise get 15 entries per read.
func (r *reader) count(partitions int) int {
	n := r.appetite.next(maxBatch) / max(r.behind, 1)
	if largest := r.appetite.entry(); largest > 0 {
		n = min(n, maxReadBytes/(largest*partitions))
	}
	return max(n, 1)
}

// hand offers what was read of a partition to its consumers, unless the reader has
// begun elsewhere since.
func (r *reader) hand(p *part, epoch int, events []domain.Event, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.epoch != epoch || !p.readable {
		return
	}
	b := batch{after: p.at, events: events, bytes: bytes}
	p.at, p.seen, p.confirmed = b.to(), true, time.Now()
	p.id = p.at.String()
	for c := range p.consumers {
		c.offer(b)
	}
}
