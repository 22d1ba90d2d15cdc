package timeline_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/streams/timeline"
)

// watchedConn is a connection to Redis that calls a function before it writes.
type watchedConn struct {
	net.Conn
	before *atomic.Pointer[func(written []byte)]
}

func (c watchedConn) Write(b []byte) (int, error) {
	if fn := c.before.Load(); fn != nil {
		(*fn)(b)
	}
	return c.Conn.Write(b)
}

// If the log passes a position during Locate, after the scan and before the query for the log's
// end, the result does not miss events at or before the position.
func TestLocateWhileTheLogPassesThePosition(t *testing.T) {
	t.Parallel()
	options, err := streams.ParseURL(redistest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	var before atomic.Pointer[func([]byte)]
	options.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return watchedConn{conn, &before}, err
	}
	b := setupWith(t, options, timeline.Config{CompareEvery: -1})
	b.append(t, "a", 1)
	// From a place in the far future on the log's positions can be foretold.
	client := redis.NewUniversalClient(options)
	defer client.Close()
	stream := fmt.Sprintf("%s:{p%02d}:events", streams.DefaultPrefix, b.log.Partition("a"))
	if err := client.Do(t.Context(), "XSETID", stream, domain.Position{Ms: 1 << 45}.String()).Err(); err != nil {
		t.Fatal(err)
	}
	next := b.append(t, "a", 1)[0]
	after := domain.Position{Ms: next.Ms, N: next.N + 2}

	passes := func(written []byte) {
		asksForEnd := bytes.Contains(written, []byte("eval")) && bytes.Contains(written, []byte("\r\n0-0\r\n"))
		if asksForEnd && before.Swap(nil) != nil {
			b.append(t, "a", 3)
		}
	}
	before.Store(&passes)
	got, err := b.timeline.Locate(t.Context(), "a", after)
	if before.Load() != nil {
		t.Fatal("the log's end was never asked for: ", err)
	}
	want := domain.Cursor{Position: after, Seq: 4} // the two from before, and two of the three
	if err != nil || got != want {
		t.Errorf("located %s, %v; want %s", got, err, want)
	}
}
