package ws

import (
	"strings"
	"testing"
)

// A new heartbeat replaces the one in the queue. It describes the client's rooms after
// the notices in between, so it goes behind them.
func TestNewerHeartbeatComesLast(t *testing.T) {
	t.Parallel()
	o := outbound{writing: true}
	for _, g := range []outgoing{
		{bytes: []byte("dashboard 1"), kind: metrics}, {bytes: []byte("heartbeat 1"), kind: latestOnly}, {bytes: []byte("left")},
		{bytes: []byte("dashboard 22"), kind: metrics}, {bytes: []byte("heartbeat 22"), kind: latestOnly},
	} {
		o.push(g)
	}
	var texts []string
	bytes := 0
	for _, g := range o.queue {
		texts = append(texts, string(g.bytes))
		bytes += len(g.bytes)
	}
	if got := strings.Join(texts, ", "); got != "dashboard 22, left, heartbeat 22" {
		t.Errorf("queued: %s", got)
	}
	if o.answers != 3 || o.bytes != bytes {
		t.Errorf("%d frames of %d bytes are counted, %d wait", o.answers, o.bytes, bytes)
	}
}
