package outbound

import (
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/edge"
	"github.com/plugcast/plugcast/transport/shelly"
)

// door knows who is to be kept out: connections that were stopped, strangers that
// keep trying keys, devices that keep failing. It is safe for concurrent use, and
// what it remembers is bounded.
type door struct {
	config *Config

	mu        sync.Mutex
	commands  map[shelly.Connection]command
	strangers map[string]*window
	failures  map[shelly.DeviceRef]failure
}

// command is the newest that was heard of a connection.
type command struct {
	at      domain.Position
	says    standing
	renewed domain.Position // when the key was replaced last
}

// standing is whether devices may come in through a connection.
type standing int

const (
	allowed standing = iota
	stopped          // until it is started
	deleted          // for ever
)

// failure is a device that did not get through its first seconds. It is known by
// its system as well: who calls himself what a neighbour's device is called must
// not keep that out.
type failure struct {
	times int
	until time.Time // when it may come again
}

// mostRemembered bounds strangers and failures, each. Who makes more of them than
// that is not kept out by memory.
const mostRemembered = 10_000

func newDoor(config *Config) *door {
	return &door{
		config: config, commands: map[shelly.Connection]command{}, strangers: map[string]*window{}, failures: map[shelly.DeviceRef]failure{},
	}
}

// command notes what was heard of a connection, unless something newer was.
func (d *door) command(id shelly.Connection, at domain.Position, says standing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.commands[id]; !at.Before(c.at) {
		c.at, c.says = at, says
		d.commands[id] = c
	}
}

// renew notes that a connection has another key.
func (d *door) renew(id shelly.Connection, at domain.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.commands[id]; at.After(c.renewed) {
		c.renewed = at
		d.commands[id] = c
	}
}

// isOld reports whether a credential is from before its key was replaced, or may
// be.
func (d *door) isOld(c *Credential) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.commands[c.Connection].renewed.After(c.Position)
}

// refuses reports whether the connection is stopped: as the newer of what was
// heard and what is known has it.
func (d *door) refuses(c *Credential) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if heard, ok := d.commands[c.Connection]; ok && !heard.at.IsZero() && !heard.at.Before(c.Position) {
		return heard.says != allowed
	}
	return c.Stopped
}

// fateOf is what becomes of the devices of a connection whose sockets are dropped.
// Of a stopped one, nobody looks for them: they are stale. Otherwise they are to
// come back, through this connection or, when it is gone, through another.
func (d *door) fateOf(id shelly.Connection) fate {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.commands[id].says {
	case stopped:
		return fateForget
	case deleted:
		return fateClosed
	}
	return fateRestart
}

// stranger counts a wrong key from an address, and reports whether that is one too
// many in a minute.
func (d *door) stranger(remote string, now time.Time) (tooMany bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	host := edge.Source(remote)
	if d.strangers[host] == nil {
		if len(d.strangers) >= mostRemembered {
			clear(d.strangers)
		}
		d.strangers[host] = &window{}
	}
	return d.strangers[host].add(now, 1) > d.config.MaxRefusals
}

// wait is how long a device has to stay away.
func (d *door) wait(device shelly.DeviceRef, now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(d.failures[device].until.Sub(now), 0)
}

// failed keeps a device out for a while, longer each time.
func (d *door) failed(device shelly.DeviceRef, now time.Time) {
	if len(d.config.Cooldowns) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.failures) >= mostRemembered {
		for id, f := range d.failures {
			if f.until.Before(now) {
				delete(d.failures, id)
			}
		}
		if len(d.failures) >= mostRemembered {
			clear(d.failures)
		}
	}
	f := d.failures[device]
	f.until = now.Add(d.config.Cooldowns[min(f.times, len(d.config.Cooldowns)-1)])
	f.times++
	d.failures[device] = f
}

// forgive forgets a device's failures.
func (d *door) forgive(device shelly.DeviceRef) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.failures, device)
}

// window counts within a minute, from its first count on.
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
