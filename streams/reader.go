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

// maxPerReader is the most partitions of one blocking read. Redis looks at each of them for
// every read.
const maxPerReader = 64

// checkTimeout bounds how long a consumer tries to interrupt the reader.
const checkTimeout = time.Second

// reader reads the partitions of one group for all consumers in this process, with one blocking
// XREAD at a time over the partitions that have consumers. It decodes each entry once. It
// begins at the end of a partition, because consumers read older entries on their own, and it
// never waits for a consumer.
//
// It also watches whether a partition continues without a gap. If it does not, or that is
// uncertain, the reader cuts off its consumers and begins again at the end; each consumer finds
// out with its next page whether it lost entries.
//
// Lock order: Log.reading, reader.mu, consumer.mu. None is held during I/O.
type reader struct {
	log  *Log
	stop context.CancelFunc
	wake chan struct{} // capacity 1: a partition was added, or should be verified

	connection atomic.Int64 // id of the reading connection, 0 if unknown

	// These belong to the reader's goroutine, and outlive its connections.
	sizer  pageSizer
	behind int // number of partitions that may have more than the last read returned

	mu     sync.Mutex
	parts  map[int]*part // by partition; only those with consumers
	sorted []*part       // parts in order, nil after a change; never changed in place
}

// part is one partition of a reader. Its consumers are guarded by reader.mu. Only the reader's
// goroutine writes the other fields, under that lock.
type part struct {
	partition int
	consumers map[*consumer]struct{}

	// readable means that the reader has begun with the partition, and that Redis does not
	// refuse to read it. The following fields are meaningless otherwise.
	readable    bool
	at          domain.Position // read up to here
	id          string          // at, in the form of Redis
	origin      string          // the value of the origin key when it was last verified
	seen        bool            // an entry existed at the position at
	incarnation string          // of the stream
	epoch       int             // grows when the reader begins again at another position

	verifiedAt time.Time // when the fields above were last certain
}

// group returns the group of a partition, which has one reader. One read can cover several
// streams of one server; in a cluster each stream is on a slot of its own.
func (l *Log) group(partition int) int {
	if _, isCluster := l.general.(*redis.ClusterClient); isCluster {
		return partition
	}
	return partition / maxPerReader
}

// attach adds a consumer to the reader of its partition, which runs while it has consumers.
// detach must follow.
func (l *Log) attach(c *consumer) *reader {
	l.reading.Lock()
	defer l.reading.Unlock()
	group := l.group(c.partition)
	if r := l.readers[group]; r != nil {
		r.add(c)
		return r
	}
	ctx, cancel := context.WithCancel(l.closing)
	r := &reader{log: l, stop: cancel, wake: make(chan struct{}, 1), parts: map[int]*part{}}
	r.add(c)
	l.readers[group] = r
	l.working.Go(func() { // Close is not waiting yet, because the consumer has entered
		defer cancel()
		isolate.Loop(ctx, l.logger, "reader of the log", func() { r.run(ctx) })
	})
	return r
}

// detach removes a consumer from its reader, and stops the reader after the last one.
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
		signal(r.wake)
	}
	p.consumers[c] = struct{}{}
}

// remove removes a consumer, and reports whether the reader has none left.
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

// join makes the reader offer its batches to a consumer from its current position, if both read
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

// requestCheck makes the reader verify a consumer's partition if the consumer could not join
// because the reader does not know the partition, or its new stream, yet.
func (r *reader) requestCheck(ctx context.Context, c *consumer) {
	r.mu.Lock()
	p := r.parts[c.partition]
	fine := p.readable && p.incarnation == c.incarnation
	r.mu.Unlock()
	if fine {
		return
	}
	signal(r.wake)
	if id := r.connection.Load(); id != 0 {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		unblock(ctx, r.log.general, r.log.keys[c.partition].events, id)
	}
}

// list returns the reader's partitions, in order.
func (r *reader) list() []*part {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sorted == nil {
		r.sorted = slices.SortedFunc(maps.Values(r.parts), func(a, b *part) int { return a.partition - b.partition })
	}
	return r.sorted
}

// run reads over one connection after another until ctx ends.
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
		if !worked { // not only the previous connection broke
			r.suspendAll()
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

// attr returns the reader's partitions for a log line.
func (r *reader) attr() slog.Attr {
	var partitions []int
	for _, p := range r.list() {
		partitions = append(partitions, p.partition)
	}
	return slog.Any("partitions", partitions)
}

// connect reads over one connection until an error. It calls working once a blocking read has
// worked, because a read that does not block proves little.
func (r *reader) connect(ctx context.Context, working func()) error {
	parts := r.list()
	if len(parts) == 0 { // the last consumer is stopping the reader
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
	stop := context.AfterFunc(ctx, func() { _ = client.Close() }) // interrupts a blocking read
	defer func() {
		if stop() {
			_ = client.Close()
		}
	}()
	x := xread{reader: r, client: client, dials: &dials}
	if err := x.readOnce(ctx, 0); err != nil { // verifies everything before the first wait
		return err
	}
	for reported := false; ctx.Err() == nil; {
		if err := x.readOnce(ctx, blockFor); err != nil {
			return err
		}
		if x.blocked && !reported {
			working()
			reported = true
		}
	}
	return ctx.Err()
}

// verify inspects partitions. It begins again at the end of those that are new, or do not
// continue from the reader's position. It fails if Redis cannot be reached.
//
// It does not repair a missing stream, because that needs the archive, and an archive that
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
		p.verifiedAt = now
		switch there := &states[i]; {
		case there.err != nil:
			p.suspend()
			if errors.Is(there.err, errMissing) {
				p.verifiedAt = time.Time{} // verify again soon
			}
		case !p.readable, p.incarnation != there.origin.incarnation, there.follows(p.at, p.seen, p.incarnation) != nil:
			p.readable, p.at, p.seen, p.incarnation = true, there.last, there.newest, there.origin.incarnation
			p.id, p.origin = p.at.String(), ""
			p.epoch++
			p.cut()
		}
	}
	return nil
}

// suspend makes the consumers read on their own until the reader has begun with the partition
// again. The caller holds reader.mu.
func (p *part) suspend() {
	if p.readable {
		p.readable = false
		p.cut()
	}
}

// fail suspends a partition whose reply cannot be decoded, until the reader verifies it and
// begins behind that reply.
func (r *reader) fail(p *part, err error) {
	r.log.logger.Error("the reader of the log cannot decode a reply", "partition", p.partition, "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	p.verifiedAt = time.Now()
	p.suspend()
}

// suspendAll suspends all partitions, and lets them be verified as soon as possible.
func (r *reader) suspendAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.parts {
		p.verifiedAt = time.Time{}
		p.suspend()
	}
}

// cut cuts off all consumers. The caller holds reader.mu.
func (p *part) cut() {
	for c := range p.consumers {
		c.cut()
	}
}

// due returns the partitions that were not verified lately.
func due(parts []*part) (due []*part) {
	now := time.Now()
	for _, p := range parts {
		if now.Sub(p.verifiedAt) >= blockFor {
			due = append(due, p)
		}
	}
	return due
}

// count returns how many entries a read over this many partitions asks of each. The partitions
// that are behind share the reader's page size. The others bring little and do not count:
// otherwise one busy partition among 64 would get 15 entries per read.
func (r *reader) count(partitions int) int {
	n := r.sizer.next(maxBatch) / max(r.behind, 1)
	if largest := r.sizer.entry(); largest > 0 {
		n = min(n, maxReadBytes/(largest*partitions))
	}
	return max(n, 1)
}

// deliver offers the events of a partition to its consumers, unless the reader has begun at
// another position since.
func (r *reader) deliver(p *part, epoch int, events []domain.Event, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.epoch != epoch || !p.readable {
		return
	}
	b := batch{after: p.at, events: events, bytes: bytes}
	p.at, p.seen, p.verifiedAt = b.to(), true, time.Now()
	p.id = p.at.String()
	for c := range p.consumers {
		c.offer(b)
	}
}
