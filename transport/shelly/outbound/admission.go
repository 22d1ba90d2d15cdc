package outbound

import (
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/edge"
)

// admission decides who may dial in. It refuses connections that were stopped, addresses
// that keep trying keys, and devices that keep failing. It is safe for concurrent use,
// and its memory is bounded.
type admission struct {
	config *Config

	mu          sync.Mutex
	connections map[domain.ConnectionRef]connection
	wrongKeys   map[string]*window // by remote host
	failures    map[domain.DeviceRef]failure
}

// connection is the newest state of a connection, as the log has it.
type connection struct {
	at      domain.Position
	state   connectionState
	renewed domain.Position // of the last replacement of its key
}

// connectionState is whether devices may dial in through a connection.
type connectionState int

const (
	started connectionState = iota
	stopped                 // until it is started
	deleted                 // for ever
)

// failure is a device that failed in its first seconds. The key of failures includes the
// system, so that a device with the name of another system's device does not lock that
// one out.
type failure struct {
	times int
	until time.Time // when it may dial again
}

// mostRemembered bounds wrongKeys and failures, each. Beyond it, entries are forgotten.
const mostRemembered = 10_000

func newAdmission(config *Config) *admission {
	return &admission{
		config: config, connections: map[domain.ConnectionRef]connection{}, wrongKeys: map[string]*window{},
		failures: map[domain.DeviceRef]failure{},
	}
}

// setState sets the state of a connection, unless a newer one is known.
func (a *admission) setState(id domain.ConnectionRef, at domain.Position, state connectionState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.connections[id]; !at.Before(c.at) {
		c.at, c.state = at, state
		a.connections[id] = c
	}
}

// renew notes that the key of a connection was replaced.
func (a *admission) renew(id domain.ConnectionRef, at domain.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.connections[id]; at.After(c.renewed) {
		c.renewed = at
		a.connections[id] = c
	}
}

// isOutdated reports whether a credential may be from before its key was replaced.
func (a *admission) isOutdated(c *Credential) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connections[c.ConnectionRef].renewed.After(c.Position)
}

// isStopped reports whether the connection is stopped or deleted, according to the newer
// of the credential and the log's last event.
func (a *admission) isStopped(c *Credential) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, ok := a.connections[c.ConnectionRef]; ok && !last.at.IsZero() && !last.at.Before(c.Position) {
		return last.state != started
	}
	return c.Stopped
}

// dropReason returns the end reason for dropped sockets of a connection. The devices of a
// stopped one are stale, and not watched. Others should come back, through this connection
// or, when it is deleted, through another.
func (a *admission) dropReason(id domain.ConnectionRef) endReason {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch a.connections[id].state {
	case stopped:
		return endStopped
	case deleted:
		return endClosed
	}
	return endRestart
}

// addWrongKey counts a wrong key from an address, and reports whether the address has
// tried too many in this minute.
func (a *admission) addWrongKey(remote string, now time.Time) (tooMany bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	host := edge.Source(remote)
	if a.wrongKeys[host] == nil {
		if len(a.wrongKeys) >= mostRemembered {
			clear(a.wrongKeys)
		}
		a.wrongKeys[host] = &window{}
	}
	return a.wrongKeys[host].add(now, 1) > a.config.MaxRefusals
}

// cooldown returns for how long a device is still refused.
func (a *admission) cooldown(device domain.DeviceRef, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(a.failures[device].until.Sub(now), 0)
}

// addFailure refuses a device for a while, longer each time.
func (a *admission) addFailure(device domain.DeviceRef, now time.Time) {
	if len(a.config.Cooldowns) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.failures) >= mostRemembered {
		for id, f := range a.failures {
			if f.until.Before(now) {
				delete(a.failures, id)
			}
		}
		if len(a.failures) >= mostRemembered {
			clear(a.failures)
		}
	}
	f := a.failures[device]
	f.until = now.Add(a.config.Cooldowns[min(f.times, len(a.config.Cooldowns)-1)])
	f.times++
	a.failures[device] = f
}

// clearFailures forgets a device's failures.
func (a *admission) clearFailures(device domain.DeviceRef) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.failures, device)
}

// window counts events within a minute that begins with the first one.
type window struct {
	since time.Time
	n     int
}

func (w *window) add(now time.Time, n int) int {
	w.n = w.count(now) + n
	if w.n == n {
		w.since = now
	}
	return w.n
}

func (w *window) count(now time.Time) int {
	if now.Sub(w.since) >= time.Minute {
		return 0
	}
	return w.n
}
