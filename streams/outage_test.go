package streams_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

// An outage is logged as one warning and its end as one line, regardless of the number of
// consumers and readers.
func TestAnOutageIsOneWarning(t *testing.T) {
	t.Parallel()
	const partitions, each, readers = 130, 2, 3 // 64 partitions each
	server := redistest.New(t)
	var book diary
	l := open(t, streams.Config{
		URL: server.URL(), Partitions: partitions,
		Logger: slog.New(slog.NewTextHandler(&book, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	var follows []*following
	for n := range partitions * each {
		follows = append(follows, follow(t, l, n%partitions, domain.Position{}))
	}
	before := book.count("level=WARN")
	for outages := 1; outages <= 2; outages++ {
		appendToEach(t, l, follows)
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		book.await(t, "lost Redis while reading the log", outages*readers)
		server = redistest.Restart(t, server)
		book.await(t, "following the log again", outages)
		if n := book.count("level=WARN") - before; n != outages {
			t.Errorf("%d warnings after %d outages", n, outages)
		}
		if n := book.count("reading the log again"); n != book.count("lost Redis while reading the log") {
			t.Errorf("%d reconnected before the end of the outage was logged", n)
		}
	}
	appendToEach(t, l, follows)
	if n := book.count("following the log again"); n != 2 {
		t.Errorf("the end of two outages was logged %d times", n)
	}

	// Consumers that end while Redis is away do not report that it is back.
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	book.await(t, "lost Redis while following the log", 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range follows {
		if err := f.end(t); !errors.Is(err, streams.ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	}
	if n := book.count("following the log again"); n != 2 {
		t.Error("the log reported that Redis is back although it is away")
	}
}

// appendToEach appends an event to every partition, and waits until every consumer has it.
func appendToEach(t *testing.T, l *streams.Log, follows []*following) {
	t.Helper()
	missing := map[int]bool{}
	for p := range l.Partitions() {
		missing[p] = true
	}
	for n := 0; len(missing) > 0; n++ {
		system := domain.SystemID(fmt.Sprint("clinica-", n))
		if p := l.Partition(system); missing[p] {
			mustAppend(t, l, update(system, n))
			delete(missing, p)
		}
	}
	for _, f := range follows {
		f.next(t)
	}
}
