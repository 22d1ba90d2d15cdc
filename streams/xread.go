package streams

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// xread makes the blocking reads of a reader, over one connection.
type xread struct {
	reader *reader
	client *redis.Client
	dials  *atomic.Int64 // how often the client connected

	begun   time.Time // when the last read began; zero before the first
	trusted int64     // value of dials when everything was last verified
	full    bool      // the last read left entries in the log
	blocked bool      // a blocking read has worked
}

// maxReadBytes bounds the reply to one XREAD, as far as the largest recent entries predict it.
// Redis bounds the reply by entries per partition only, and any partition may have become busy
// since the last read.
const maxReadBytes = 8 * maxPageBytes

// readPause is how long the reader waits after a read that returned entries, so that a busy log
// is read in batches. The first entry after a silence is not delayed. Without the pause each
// entry costs a read over all partitions: 120 µs of Redis for 16 partitions, instead of 20 for
// one.
const readPause = 2 * time.Millisecond

// longPause is how long after the last read began so much may have been appended to every
// partition that a read of full pages would be huge: 64 partitions times 1000 entries of
// 8 KiB are 500 MiB. A smaller read after a mere silence costs one more round trip.
const longPause = time.Second

// partResult is the result of a read for one partition.
type partResult struct {
	part   *part
	epoch  int // epoch of the part when the read began
	events []domain.Event
	bytes  int
	failed error // the error by which the reply could not be decoded
}

// readOnce verifies the partitions that are due, reads, and delivers the entries. Without
// entries it waits for up to wait.
func (x *xread) readOnce(ctx context.Context, wait time.Duration) error {
	r := x.reader
	parts := r.list()
	if err := r.verify(ctx, due(parts)); err != nil {
		return err
	}
	results := make([]partResult, 0, len(parts))
	for _, p := range parts {
		if p.readable {
			results = append(results, partResult{part: p, epoch: p.epoch})
		}
	}
	if len(results) == 0 {
		return backoff.SleepOr(ctx, wait, r.wake)
	}
	doubtful, err := x.read(ctx, results, wait)
	if reply := replyError(""); errors.As(err, &reply) {
		return x.isolate(ctx, results, err)
	}
	if err != nil {
		return err
	}
	x.blocked = x.blocked || wait > 0
	if err := r.verify(ctx, doubtful); err != nil {
		return err
	}
	if delivered := x.deliver(results); delivered && !x.full {
		return backoff.SleepOr(ctx, readPause, r.wake)
	}
	return nil
}

// deliver passes the entries to the consumers, and reports whether there were any.
func (x *xread) deliver(results []partResult) (delivered bool) {
	for _, res := range results {
		switch {
		case res.failed != nil:
			x.reader.fail(res.part, res.failed)
		case len(res.events) > 0:
			x.reader.deliver(res.part, res.epoch, res.events, res.bytes)
			delivered = true
		}
	}
	return delivered
}

// read makes one XREAD and stores its entries in results. It returns the partitions that must
// be verified: it reads the origins after the entries, so that it notices a trim or a new
// stream in between.
func (x *xread) read(ctx context.Context, results []partResult, wait time.Duration) (doubtful []*part, err error) {
	keys := x.reader.log.keys
	count := x.begin(len(results))
	args := make([]any, 0, 6+2*len(results))
	args = append(args, "xread", "count", count)
	if wait > 0 { // 0 would block without limit
		args = append(args, "block", wait.Milliseconds())
	}
	args = append(args, "streams")
	origins := make([]string, len(results))
	for i := range results {
		k := &keys[results[i].part.partition]
		args, origins[i] = append(args, k.events), k.origin
	}
	for i := range results {
		args = append(args, results[i].part.id)
	}
	pipe := x.client.Pipeline()
	raw := redis.NewRawCmd(ctx, args...)
	_ = pipe.Process(ctx, raw)
	begins := pipe.MGet(ctx, origins...)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	if err := x.decode(raw.Val(), results, count); err != nil {
		return nil, err
	}
	dials := x.dials.Load()
	for i, value := range begins.Val() {
		p := results[i].part
		text, _ := value.(string)
		if text != "" && text == p.origin && dials == x.trusted {
			continue
		}
		if o, err := parseOrigin(text); err != nil || o.incarnation != p.incarnation || p.at.Before(o.at) || dials != x.trusted {
			doubtful = append(doubtful, p)
			continue
		}
		p.origin = text
	}
	x.trusted = dials
	return doubtful, nil
}

// begin returns how many entries the read that begins now asks of each partition. All
// partitions may be behind in the first read of a connection, and after a pause.
func (x *xread) begin(partitions int) (count int) {
	now := time.Now()
	if now.Sub(x.begun) > longPause {
		x.reader.behind = partitions
	}
	x.begun = now
	return x.reader.count(partitions)
}

// decode decodes the reply of an XREAD: the streams in the order of the request, without those
// that have no new entries. If a stream cannot be decoded, or the decoder panics, only its
// result has the error.
func (x *xread) decode(raw []byte, results []partResult, count int) error {
	r := &reply{buf: raw}
	x.full, x.reader.behind = false, 0
	n, err := r.array()
	if err != nil || n < 1 {
		return err
	}
	keys, total := x.reader.log.keys, pageStats{}
	for i := 0; n > 0; i++ {
		begin := r.at
		if _, err := r.array(); err != nil {
			return err
		}
		name, err := r.bulk()
		if err != nil {
			return err
		}
		for i < len(results) && keys[results[i].part.partition].events != string(name) {
			i++
		}
		if i == len(results) {
			return errMalformed
		}
		var got pageStats
		res := &results[i]
		res.failed = isolate.Run(x.reader.log.logger, "decoding a partition", func() (err error) {
			res.events, got, err = decodeEntries(r)
			return err
		})
		if res.failed == nil {
			res.bytes = got.bytes
			total.entries, total.largest = max(total.entries, got.entries), max(total.largest, got.largest)
			x.reader.log.entriesRead.Add(uint64(len(res.events)))
		}
		if got.entries >= count {
			x.full = true
			x.reader.behind++
		}
		if n--; res.failed != nil || len(res.events) < got.entries { // skip the rest of the stream
			r.at, x.full = begin, true
			if err := r.skip(); err != nil {
				if res.failed == nil {
					return err
				}
				break // the next read leaves this stream out, and returns the others
			}
		}
	}
	if x.full {
		total.entries = maxBatch // one had more, so ask for more of all
	}
	x.reader.sizer.learn(maxBatch, total)
	return nil
}

// isolate suspends the partitions for which Redis refuses a read, so that the others continue.
// It returns the error if no partition is the reason.
func (x *xread) isolate(ctx context.Context, results []partResult, err error) error {
	parts := make([]*part, len(results))
	for i := range results {
		parts[i] = results[i].part
	}
	if failed := x.reader.verify(ctx, parts); failed != nil {
		return failed
	}
	for i := range results {
		if p := results[i].part; !p.readable || p.epoch != results[i].epoch {
			return nil
		}
	}
	return err
}
