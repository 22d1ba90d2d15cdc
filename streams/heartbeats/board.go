// Package heartbeats knows which devices live. Whoever holds a device's socket
// says so here, in batches; liveness is not written to the log. The owner of a
// partition looks which devices have fallen silent or are back, and writes one
// device-offline-status for each: see [Board.Watch].
//
// The board is in Redis, in six keys beside each partition's stream. A device is
// known by the time at which it will count as silent, so that a sweep is one
// range of a sorted set however many devices live.
package heartbeats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/streams"
)

// Device names a device across systems.
type Device struct {
	System domain.SystemID
	Device domain.DeviceID
}

// member is the device's name on the board. Ids have no slash in them.
func (d Device) member() string { return string(d.System) + "/" + string(d.Device) }

func parseMember(member string) Device {
	system, device, _ := strings.Cut(member, "/")
	return Device{domain.SystemID(system), domain.DeviceID(device)}
}

const (
	// flushEvery is the pace of the writes: thousands of heartbeats are a few.
	flushEvery = 250 * time.Millisecond
	// flushTimeout bounds one write.
	flushTimeout = 5 * time.Second
	// batch is how many changes one script call carries.
	batch = 500
)

// Board is the board as one process writes and reads it. It is safe for
// concurrent use. Only Run, Watch and Held wait for Redis.
type Board struct {
	log    *streams.Log
	node   string
	logger *slog.Logger
	lost   func(d Device, session string)

	mu      sync.Mutex
	changes []map[string][]change // per partition and member: what is to be written, in order
}

// New makes the board of one process. lost is told, from Run's goroutine, of a
// session that says its device lives while another session has it: its socket is
// of no use any more. Nil is told nothing.
func New(log *streams.Log, node string, logger *slog.Logger, lost func(d Device, session string)) *Board {
	if lost == nil {
		lost = func(Device, string) {}
	}
	b := &Board{log: log, node: node, logger: logger, lost: lost, changes: make([]map[string][]change, log.Partitions())}
	for i := range b.changes {
		b.changes[i] = map[string][]change{}
	}
	return b
}

// change is something to be written about a device.
type change struct {
	verb    verb
	session string
	at      time.Time     // when it happened
	within  time.Duration // after at: when the device counts as silent
	reason  domain.OfflineReason
}

type verb string

const (
	verbOpen   verb = "open"
	verbAlive  verb = "alive"
	verbClose  verb = "close"
	verbForget verb = "forget"
	verbAwait  verb = "await"
	verbGone   verb = "gone"
	verbBack   verb = "back"
)

// Open says that the session holds the device from now on, in place of whoever
// did, and that the device counts as silent when nothing more is said of it for
// the time within. A device that had been found silent is back.
func (b *Board) Open(d Device, session string, within time.Duration) {
	b.put(d, change{verb: verbOpen, session: session, within: within})
}

// Alive says that the session, which holds the device, heard of it.
func (b *Board) Alive(d Device, session string, within time.Duration) {
	b.put(d, change{verb: verbAlive, session: session, within: within})
}

// Close says that the session holds the device no more, and that it counts as
// silent after the grace, for that reason, unless somebody opens it.
func (b *Board) Close(d Device, session string, grace time.Duration, reason domain.OfflineReason) {
	b.put(d, change{verb: verbClose, session: session, within: grace, reason: reason})
}

// Forget ends the watch over a device that the session holds.
func (b *Board) Forget(d Device, session string) {
	b.put(d, change{verb: verbForget, session: session})
}

// Await says that the device is to be heard of within the time, or counts as
// silent. It changes nothing for a device that is watched over already, or was
// found silent.
func (b *Board) Await(d Device, within time.Duration) {
	b.put(d, change{verb: verbAwait, within: within})
}

// Report says that somebody who knows found the device silent, or back.
func (b *Board) Report(d Device, online bool) {
	c := change{verb: verbGone, reason: domain.ReasonReported}
	if online {
		c = change{verb: verbBack}
	}
	b.put(d, c)
}

func (b *Board) put(d Device, c change) {
	c.at = time.Now()
	partition, member := b.log.Partition(d.System), d.member()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes[partition][member] = merge(b.changes[partition][member], c)
}

// merge adds a change to those that wait for the same device. What the new one
// makes void goes, so that a few are all there ever are, however long Redis is
// away.
func merge(waiting []change, c change) []change {
	switch c.verb {
	case verbOpen:
		return []change{c}
	case verbAlive:
		if n := len(waiting); n > 0 {
			if last := &waiting[n-1]; last.session == c.session && (last.verb == verbAlive || last.verb == verbOpen) {
				last.at, last.within = c.at, c.within
				return waiting
			}
		}
	}
	kept := waiting[:0]
	for _, w := range waiting {
		reported := w.verb == verbGone || w.verb == verbBack
		switch c.verb {
		case verbGone, verbBack:
			if reported {
				continue
			}
		default:
			if w.session == c.session && w.verb != verbOpen && !reported {
				continue
			}
		}
		kept = append(kept, w)
	}
	if len(kept) >= mostWaiting {
		kept = append(kept[:0], kept[1:]...)
	}
	return append(kept, c)
}

// mostWaiting bounds the changes that wait for one device. Only sessions that
// replace each other without opening could have more.
const mostWaiting = 4

// Run writes what is said until ctx ends, and then what is left.
func (b *Board) Run(ctx context.Context) error {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := b.flush(last); err != nil {
				return fmt.Errorf("heartbeats: %w", err)
			}
			return ctx.Err()
		case <-ticker.C:
		}
		err := b.flush(ctx)
		if err != nil && !away && ctx.Err() == nil {
			b.logger.Warn("heartbeats: cannot be written; trying again", "error", err)
		}
		away = err != nil
	}
}

func (b *Board) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	var errs []error
	for partition := range b.changes {
		for {
			members, changes := b.take(partition)
			if len(members) == 0 {
				break
			}
			if err := b.write(ctx, partition, members, changes); err != nil {
				b.giveBack(partition, members, changes)
				errs = append(errs, err)
				break
			}
		}
	}
	return errors.Join(errs...)
}

// take picks at most a batch of devices with all that waits for them.
func (b *Board) take(partition int) (members []string, changes [][]change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for member, waiting := range b.changes[partition] {
		if len(members) == batch {
			break
		}
		delete(b.changes[partition], member)
		members, changes = append(members, member), append(changes, waiting)
	}
	return members, changes
}

// giveBack lets what could not be written wait again, before what came since.
func (b *Board) giveBack(partition int, members []string, changes [][]change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, member := range members {
		waiting := changes[i]
		for _, since := range b.changes[partition][member] {
			waiting = merge(waiting, since)
		}
		b.changes[partition][member] = waiting
	}
}

func (b *Board) write(ctx context.Context, partition int, members []string, changes [][]change) error {
	now := time.Now()
	args := []any{b.node}
	var of []int // the member of each change
	for i := range members {
		for _, c := range changes[i] {
			of = append(of, i)
			args = append(args, string(c.verb), members[i], c.session, now.Sub(c.at).Milliseconds(), c.within.Milliseconds(), string(c.reason))
		}
	}
	lost, err := writeScript.Run(ctx, b.log.Client(), b.keys(partition), args...).Int64Slice()
	if err != nil {
		return fmt.Errorf("write heartbeats: %w", err)
	}
	for _, n := range lost {
		member := members[of[n]]
		session := args[1+int(n)*fields+2].(string)
		isolate.Do(b.logger, "heartbeats", func() { b.lost(parseMember(member), session) })
	}
	return nil
}

// Held tells whether any process holds the device's socket.
func (b *Board) Held(ctx context.Context, d Device) (bool, error) {
	keys := b.keys(b.log.Partition(d.System))
	held, err := heldScript.RunRO(ctx, b.log.Client(), keys[1:2], d.member()).Bool()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("heartbeats: who holds %s: %w", d.member(), err)
	}
	return held, nil
}

// keys are those of a partition, in the order that the scripts take them.
func (b *Board) keys(partition int) []string {
	seen := b.log.Slot(partition) + "seen"
	return []string{seen, seen + ":info", seen + ":silent", seen + ":pending", seen + ":watched", seen + ":systems"}
}
