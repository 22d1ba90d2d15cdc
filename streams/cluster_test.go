package streams_test

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

// In a cluster each partition is read from its own server, also after its slot has moved.
func TestFollowInACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.NewCluster(t, 2)
	l := open(t, streams.Config{URL: cluster.URL(), Partitions: 4, RetryFor: patience})
	var follows []*following
	for p := range l.Partitions() {
		follows = append(follows, follow(t, l, p, domain.Position{}), follow(t, l, p, domain.Position{}))
	}
	for round := range 3 {
		for p := range l.Partitions() {
			want := mustAppend(t, l, update(systemIn(l, p), round))[0]
			for _, f := range follows[2*p : 2*p+2] {
				if e := f.next(t); e.Position != want {
					t.Fatalf("partition %d: got %s, want %s", p, e.Position, want)
				}
			}
		}
		for p := range l.Partitions() {
			cluster.Move(t, l.Topic(p))
		}
	}
}
