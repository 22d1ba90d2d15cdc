package streams

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// bulks encodes strings as Redis does in an array.
func bulks(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	return b.String()
}

// streamReply returns XREAD's reply for a stream with one entry.
func streamReply(key, id string) string {
	return fmt.Sprintf("*2\r\n$%d\r\n%s\r\n*1\r\n*2\r\n$%d\r\n%s\r\n%s", len(key), key, len(id), id, bulks("systemId", "clinica-sol"))
}

// newRead returns an xread of several partitions whose reader has a consumer in each.
func newRead(t *testing.T, partitions int) (*xread, []partResult) {
	t.Helper()
	l := &Log{keys: make([]keys, partitions), logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	r := &reader{log: l, wake: make(chan struct{}, 1), parts: map[int]*part{}}
	results := make([]partResult, partitions)
	for i := range results {
		l.keys[i].events = fmt.Sprint("events", i)
		c := &consumer{log: l, partition: i, reader: r, wake: make(chan struct{}, 1)}
		r.add(c)
		r.parts[i].readable = true
		r.join(c)
		results[i].part = r.parts[i]
	}
	return &xread{reader: r}, results
}

// Partitions that are behind share what a read brings, and idle ones take nothing away
// from them. However large the entries are, a read that results all partitions busy stays
// within its bytes.
func TestEntriesOfARead(t *testing.T) {
	t.Parallel()
	r := &reader{}
	for range 10 {
		r.sizer.learn(maxBatch, pageStats{entries: maxBatch, largest: 400})
	}
	for _, c := range []struct{ partitions, behind, largest, want int }{
		{64, 0, 400, maxBatch},
		{64, 1, 400, maxBatch},
		{64, 4, 400, maxBatch / 4},
		{64, 64, 400, maxBatch / 64},
		{64, 1, 1 << 16, maxReadBytes / 64 / (1 << 16)},
		{4, 1, 1 << 16, maxPageBytes / (1 << 16)},
		{64, 64, 16 << 20, 1},
	} {
		r.behind, r.sizer.largest = c.behind, c.largest
		if got := r.count(c.partitions); got != c.want {
			t.Errorf("%d of %d partitions are behind with entries of %d bytes: %d entries of each, want %d",
				c.behind, c.partitions, c.largest, got, c.want)
		}
	}
}

// After a pause every partition may be behind, so the next read asks little of each.
func TestReadAfterAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const partitions = 64
		r := &reader{}
		for range 10 {
			r.sizer.learn(maxBatch, pageStats{entries: maxBatch, largest: 300})
		}
		x := &xread{reader: r}
		for _, c := range []struct {
			pause time.Duration
			want  int
		}{
			{0, maxBatch / partitions}, // the first read of a connection
			{time.Second / 2, maxBatch},
			{2 * time.Second, maxBatch / partitions},
		} {
			time.Sleep(c.pause) // the bubble's clock
			if got := x.begin(partitions); got != c.want {
				t.Errorf("after %v: %d entries of each partition, want %d", c.pause, got, c.want)
			}
			r.behind = 0 // nothing came
		}
	})
}

// A partition whose entries cannot be decoded, or make the decoder panic, does not stop the
// other partitions.
func TestAPartitionThatCannotBeDecodedStopsNoOther(t *testing.T) {
	t.Parallel()
	fine := func(n int) string { return streamReply(fmt.Sprint("events", n), "1-1") }
	for name, c := range map[string]struct {
		broken string
		rest   int // events of the partition behind it
	}{
		"no position":              {streamReply("events1", "x"), 1},
		"a panic":                  {"*2\r\n" + bulks("events1")[4:] + fmt.Sprintf("*%d\r\n", 1<<50), 0},
		"an entry without its end": {"*2\r\n" + bulks("events1")[4:] + "*1\r\n*3\r\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, results := newRead(t, 3)
			if err := x.decode([]byte("*3\r\n"+fine(0)+c.broken+fine(2)), results, 100); err != nil {
				t.Fatal(err)
			}
			x.deliver(results)
			for i, events := range []int{1, 0, c.rest} {
				p := results[i].part
				if readable := i != 1; p.readable != readable || len(results[i].events) != events {
					t.Errorf("partition %d: readable %v, %d events, %v", i, p.readable, len(results[i].events), results[i].failed)
				}
				for consumer := range p.consumers {
					if live := i != 1; consumer.handover.live != live || len(consumer.handover.queue) != events {
						t.Errorf("partition %d: live %v, %d batches", i, consumer.handover.live, len(consumer.handover.queue))
					}
				}
			}
			if next := results[0].part.at; next != (domain.Position{Ms: 1, N: 1}) {
				t.Errorf("the partition that is fine is at %s", next)
			}
		})
	}
}
