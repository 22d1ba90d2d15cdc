// Package liveness knows which devices are alive. The process that holds a device's socket
// reports to the [Registry], in batches, that the device lives; this is not written to the log.
// The owner of a partition finds the devices that have fallen silent or are back, and appends
// one device-offline-status for each: see [Registry.Watch].
//
// The registry is in Redis, in six keys beside each partition's stream. It holds for each
// device the time at which the device will count as silent, so that a sweep reads one range of
// a sorted set, however many devices are alive.
package liveness

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
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/streams"
)

// memberOf is the device's name in the sorted sets. Ids have no slash in them.
func memberOf(d domain.DeviceRef) string { return string(d.System) + "/" + string(d.Device) }

func parseMember(member string) domain.DeviceRef {
	system, device, _ := strings.Cut(member, "/")
	return domain.DeviceRef{System: domain.SystemID(system), Device: domain.DeviceID(device)}
}

const (
	// flushEvery is how often changes are written: thousands of heartbeats cost a few writes.
	flushEvery = 250 * time.Millisecond
	// flushTimeout bounds one write.
	flushTimeout = 5 * time.Second
	// batch is the most devices in one call of writeScript.
	batch = 500
)

// Registry is one process's access to the registry in Redis. It is safe for concurrent use.
// Only Run, Watch and Held wait for Redis; the other methods leave a change for Run to write.
type Registry struct {
	log    *streams.Log
	node   string
	logger *slog.Logger

	mu      sync.Mutex
	changes []map[string][]change // per partition and member: the changes to write, in order
}

// Lost is called with a session that reported its device alive although another session holds
// the device: the socket of the lost session is of no use any more.
type Lost func(d domain.DeviceRef, session string)

// New returns the Registry of one process, which is called node.
func New(log *streams.Log, node string, logger *slog.Logger) *Registry {
	r := &Registry{log: log, node: node, logger: logger, changes: make([]map[string][]change, log.Partitions())}
	for i := range r.changes {
		r.changes[i] = map[string][]change{}
	}
	return r
}

// change is one report about a device that Run writes.
type change struct {
	verb    verb
	session string
	at      time.Time     // when it happened
	within  time.Duration // the device counts as silent this long after at
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

// Open reports that the session holds the device from now on, in place of any other session,
// and that the device counts as silent unless it is heard again within the given time. A device
// that was found silent is back.
func (r *Registry) Open(d domain.DeviceRef, session string, within time.Duration) {
	r.put(d, change{verb: verbOpen, session: session, within: within})
}

// Alive reports that the session, which holds the device, heard from it. The device counts as
// silent unless it is heard again within the given time.
func (r *Registry) Alive(d domain.DeviceRef, session string, within time.Duration) {
	r.put(d, change{verb: verbAlive, session: session, within: within})
}

// Close reports that the session no longer holds the device. The device counts as silent after
// the grace period, for the given reason, unless a session opens it.
func (r *Registry) Close(d domain.DeviceRef, session string, grace time.Duration, reason domain.OfflineReason) {
	r.put(d, change{verb: verbClose, session: session, within: grace, reason: reason})
}

// Forget stops watching a device that the session holds.
func (r *Registry) Forget(d domain.DeviceRef, session string) {
	r.put(d, change{verb: verbForget, session: session})
}

// Await reports that the device should be heard within the given time, and counts as silent
// otherwise. It changes nothing for a device that is watched already or was found silent.
func (r *Registry) Await(d domain.DeviceRef, within time.Duration) {
	r.put(d, change{verb: verbAwait, within: within})
}

// Report reports that a reliable source, such as the Shelly Cloud, found the device silent or
// back.
func (r *Registry) Report(d domain.DeviceRef, online bool) {
	c := change{verb: verbGone, reason: domain.ReasonReported}
	if online {
		c = change{verb: verbBack}
	}
	r.put(d, c)
}

func (r *Registry) put(d domain.DeviceRef, c change) {
	c.at = time.Now()
	partition, member := r.log.Partition(d.System), memberOf(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes[partition][member] = merge(r.changes[partition][member], c)
}

// merge adds a change to those that wait for the same device, and drops those that it
// supersedes, so that few changes wait however long Redis is away.
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
	if len(kept) >= maxWaiting {
		kept = append(kept[:0], kept[1:]...)
	}
	return append(kept, c)
}

// maxWaiting bounds the changes that wait for one device. Only sessions that replace each other
// without opening could have more.
const maxWaiting = 4

// Run writes the reported changes every quarter of a second until ctx ends, and then writes the
// rest. It returns nil, or an error if the last write failed. It calls lost, which may be nil,
// from its own goroutine.
func (r *Registry) Run(ctx context.Context, lost Lost) error {
	if lost == nil {
		lost = func(domain.DeviceRef, string) {}
	}
	away := false
	backoff.Every(ctx, flushEvery, func(time.Time) {
		err := r.flush(ctx, lost)
		if err != nil && !away && ctx.Err() == nil {
			r.logger.Warn("liveness: cannot write to Redis; trying again", "error", err)
		}
		away = err != nil
	})
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := r.flush(last, lost); err != nil {
		return fmt.Errorf("liveness: %w", err)
	}
	return nil
}

func (r *Registry) flush(ctx context.Context, lost Lost) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	var errs []error
	for partition := range r.changes {
		for {
			members, changes := r.takeBatch(partition)
			if len(members) == 0 {
				break
			}
			if err := r.write(ctx, lost, partition, members, changes); err != nil {
				r.requeue(partition, members, changes)
				errs = append(errs, err)
				break
			}
		}
	}
	return errors.Join(errs...)
}

// takeBatch removes at most a batch of devices from those that wait, with all of their changes.
func (r *Registry) takeBatch(partition int) (members []string, changes [][]change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for member, waiting := range r.changes[partition] {
		if len(members) == batch {
			break
		}
		delete(r.changes[partition], member)
		members, changes = append(members, member), append(changes, waiting)
	}
	return members, changes
}

// requeue puts changes that could not be written back, in front of those that came since.
func (r *Registry) requeue(partition int, members []string, changes [][]change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, member := range members {
		waiting := changes[i]
		for _, since := range r.changes[partition][member] {
			waiting = merge(waiting, since)
		}
		r.changes[partition][member] = waiting
	}
}

func (r *Registry) write(ctx context.Context, lost Lost, partition int, members []string, changes [][]change) error {
	now := time.Now()
	args := []any{r.node}
	var owners []int // by change: index of its member
	for i := range members {
		for _, c := range changes[i] {
			owners = append(owners, i)
			args = append(args, string(c.verb), members[i], c.session, now.Sub(c.at).Milliseconds(), c.within.Milliseconds(), string(c.reason))
		}
	}
	gone, err := writeScript.Run(ctx, r.log.Client(), r.keys(partition), args...).Int64Slice()
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	for _, n := range gone {
		member := members[owners[n]]
		session := args[1+int(n)*fields+2].(string)
		isolate.Do(r.logger, "liveness", func() { lost(parseMember(member), session) })
	}
	return nil
}

// Held reports whether a session of any process holds the device's socket.
func (r *Registry) Held(ctx context.Context, d domain.DeviceRef) (bool, error) {
	keys := r.keys(r.log.Partition(d.System))
	held, err := heldScript.RunRO(ctx, r.log.Client(), keys[1:2], memberOf(d)).Bool()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, fmt.Errorf("liveness: look up the holder of %s: %w", memberOf(d), err)
	}
	return held, nil
}

// keys returns the keys of a partition, in the order in which the scripts take them.
func (r *Registry) keys(partition int) []string {
	seen := r.log.Slot(partition) + "seen"
	return []string{seen, seen + ":info", seen + ":silent", seen + ":pending", seen + ":sweep", seen + ":systems"}
}
