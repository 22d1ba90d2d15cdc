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

	trusted int64 // of dials: everything was verified since
	full    bool  // the last read left something in the log
	blocked bool  // a read that may wait has worked
}

// maxReadBytes bounds the reply to one XREAD, as far as the largest entries that came
// lately tell: Redis bounds it by entries per partition alone, and any partition may
// have become busy since the last read.
const maxReadBytes = 8 * maxPageBytes

// readPause is how long a reader that brought something waits before it reads again, so
// that a busy log is read in batches. What comes after a silence is not delayed. Without
// it, each entry costs a read over all partitions: 120 µs of Redis for 16 of them, where
// one takes 20.
const readPause = 2 * time.Millisecond

// found is what a read brought of one partition.
type found struct {
	part   *part
	epoch  int // of the part, when the read began
	events []domain.Event
	bytes  int
	failed error // what was read could not be decoded
}

// once verifies what is due, and reads and hands on what there is. It waits for so
// long when there is nothing.
func (x *xread) once(ctx context.Context, wait time.Duration) error {
	r := x.reader
	parts := r.list()
	if err := r.verify(ctx, due(parts)); err != nil {
		return err
	}
	finds := make([]found, 0, len(parts))
	for _, p := range parts {
		if p.readable {
			finds = append(finds, found{part: p, epoch: p.epoch})
		}
	}
	if len(finds) == 0 {
		return backoff.SleepOr(ctx, wait, r.added)
	}
	doubtful, err := x.read(ctx, finds, wait)
	if reply := replyError(""); errors.As(err, &reply) {
		return x.isolate(ctx, finds, err)
	}
	if err != nil {
		return err
	}
	x.blocked = x.blocked || wait > 0
	if err := r.verify(ctx, doubtful); err != nil {
		return err
	}
	if brought := x.hand(finds); brought && !x.full {
		return backoff.SleepOr(ctx, readPause, r.added)
	}
	return nil
}

// hand gives the consumers what was read, and reports whether that was anything.
func (x *xread) hand(finds []found) (brought bool) {
	for _, f := range finds {
		switch {
		case f.failed != nil:
			x.reader.fail(f.part, f.failed)
		case len(f.events) > 0:
			x.reader.hand(f.part, f.epoch, f.events, f.bytes)
			brought = true
		}
	}
	return brought
}

// read fills in what one XREAD brings, and returns the partitions about which there is
// doubt: where each begins is read behind the entries, so that a trim or a new stream
// in between is seen.
func (x *xread) read(ctx context.Context, finds []found, wait time.Duration) (doubtful []*part, err error) {
	keys := x.reader.log.keys
	count := x.reader.count(len(finds))
	args := make([]any, 0, 6+2*len(finds))
	args = append(args, "xread", "count", count)
	if wait > 0 { // 0 would mean for ever
		args = append(args, "block", wait.Milliseconds())
	}
	args = append(args, "streams")
	origins := make([]string, len(finds))
	for i := range finds {
		k := &keys[finds[i].part.partition]
		args, origins[i] = append(args, k.events), k.origin
	}
	for i := range finds {
		args = append(args, finds[i].part.id)
	}
	pipe := x.client.Pipeline()
	raw := redis.NewRawCmd(ctx, args...)
	_ = pipe.Process(ctx, raw)
	begins := pipe.MGet(ctx, origins...)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	if err := x.decode(raw.Val(), finds, count); err != nil {
		return nil, err
	}
	dials := x.dials.Load()
	for i, value := range begins.Val() {
		p := finds[i].part
		text, _ := value.(string)
		if text != "" && text == p.begins && dials == x.trusted {
			continue
		}
		if o, err := parseOrigin(text); err != nil || o.incarnation != p.incarnation || p.at.Before(o.at) || dials != x.trusted {
			doubtful = append(doubtful, p)
			continue
		}
		p.begins = text
	}
	x.trusted = dials
	return doubtful, nil
}

// decode reads the reply of an XREAD: streams in the order in which they were asked for,
// without those that have nothing new. A stream that cannot be decoded has that error in
// its find and is no error of the others, also if that is a fault of ours.
func (x *xread) decode(raw []byte, finds []found, count int) error {
	r := &reply{buf: raw}
	x.full, x.reader.behind = false, 0
	n, err := r.array()
	if err != nil || n < 1 {
		return err
	}
	keys, total := x.reader.log.keys, reading{}
	for i := 0; n > 0; i++ {
		begin := r.at
		if _, err := r.array(); err != nil {
			return err
		}
		name, err := r.bulk()
		if err != nil {
			return err
		}
		for i < len(finds) && keys[finds[i].part.partition].events != string(name) {
			i++
		}
		if i == len(finds) {
			return errMalformed
		}
		var got reading
		f := &finds[i]
		f.failed = isolate.Run(x.reader.log.logger, "decoding a partition", func() (err error) {
			f.events, got, err = decodeEntries(r)
			return err
		})
		if f.failed == nil {
			f.bytes = got.bytes
			total.entries, total.largest = max(total.entries, got.entries), max(total.largest, got.largest)
			x.reader.log.entriesRead.Add(uint64(len(f.events)))
		}
		if got.entries >= count {
			x.full = true
			x.reader.behind++
		}
		if n--; f.failed != nil || len(f.events) < got.entries { // go behind the stream
			r.at, x.full = begin, true
			if err := r.skip(); err != nil {
				if f.failed == nil {
					return err
				}
				break // the next read is without this one, and brings the rest
			}
		}
	}
	if x.full {
		total.entries = maxBatch // one had more, so ask for more of all
	}
	x.reader.appetite.note(maxBatch, total)
	return nil
}

// isolate takes out the partitions for which Redis refuses a read, so that the others go
// on. It returns the error when it is none of them.
func (x *xread) isolate(ctx context.Context, finds []found, err error) error {
	parts := make([]*part, len(finds))
	for i := range finds {
		parts[i] = finds[i].part
	}
	if failed := x.reader.verify(ctx, parts); failed != nil {
		return failed
	}
	for i := range finds {
		if p := finds[i].part; !p.readable || p.epoch != finds[i].epoch {
			return nil
		}
	}
	return err
}
