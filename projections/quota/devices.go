// Package quota bounds how many devices a system has, regardless of how they come: by dialling
// in, from the Shelly Cloud, by publishing or over a bridge.
package quota

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Rows is the read model of devices.
type Rows interface {
	// FindDevices returns which of the devices the system has, and how many it has in all. It
	// counts no further than most.
	FindDevices(ctx context.Context, system domain.SystemID, devices []domain.DeviceID, most int,
	) (known []domain.DeviceID, count int, err error)
	// WaitForSystem waits until the rows contain everything that was appended up to a position.
	WaitForSystem(ctx context.Context, system domain.SystemID, at domain.Position) error
}

// Log is the log to which the first event of a device is appended.
type Log interface {
	// Newest returns a position at or after the newest event of the system.
	Newest(ctx context.Context, system domain.SystemID) (domain.Position, error)
}

const (
	// recountAfter is how old a count may be, and how long the rows are not queried again after
	// they did not answer.
	recountAfter = 5 * time.Second
	// queryTimeout bounds each of two waits: for the rows to catch up with the log, and for
	// their answer.
	queryTimeout = time.Second
	// maxRemembered bounds the cached devices of all systems together: about 20 bytes each.
	// A system itself counts as costOfSystem devices.
	maxRemembered = 1 << 20
	costOfSystem  = 16
	// maxWanted bounds the devices of waiting callers that one query includes.
	maxWanted = 1000
)

// Devices is a [domain.DeviceQuota] with the same limit for every system. It is safe for
// concurrent use.
//
// It queries nothing for cached devices. For other devices it makes one round trip to the
// database, one at a time per system and for all waiting callers together, and counts the
// system's devices at most every 5 s.
//
// The quota is approximate. A process does not see at once which devices other processes admit,
// so concurrent processes may together admit a few too many. While the database does not
// answer, publishing continues, and each process admits as many new devices as a system may
// have in all. A device that is in the log but not settled yet may count twice, so the last
// free place may be refused once.
type Devices struct {
	limit  int
	memory int // bound of remembered
	rows   Rows
	log    Log
	seed   maphash.Seed

	mu         sync.Mutex
	systems    map[domain.SystemID]*system
	remembered int
	uses       uint64
}

var _ domain.DeviceQuota = (*Devices)(nil)

// system is the cached data of one system. Devices.mu guards all fields but querying.
type system struct {
	querying chan struct{} // holds a token while no query about the system runs

	known  map[uint64]struct{} // hashes of devices that the system is known to have
	wanted []domain.DeviceID   // unknown devices of callers that wait for a query
	used   uint64              // number of the last use

	count      int // number of devices in the rows at counted
	appended   int // number of new devices that were appended since
	pending    int // number of new devices that are admitted and not settled
	unverified int // number of new devices that were admitted without an answer since the last count

	counted time.Time // time of the last count, or attempt to count
	failed  time.Time // time when the rows last did not answer
	behind  time.Time // time when the rows last did not catch up
}

// New returns a quota of limit devices per system.
func New(limit int, rows Rows, log Log) *Devices {
	return &Devices{
		limit: limit, memory: maxRemembered, rows: rows, log: log, seed: maphash.MakeSeed(), systems: map[domain.SystemID]*system{},
	}
}

// Admit implements [domain.DeviceQuota].
func (d *Devices) Admit(ctx context.Context, id domain.SystemID, devices []domain.DeviceID) (domain.Admission, error) {
	s, unknown := d.use(id, devices)
	if len(unknown) == 0 {
		return domain.Admission{}, nil
	}
	select {
	case <-s.querying:
		defer func() { s.querying <- struct{}{} }()
	case <-ctx.Done():
		return domain.Admission{}, ctx.Err()
	}
	// The queries do not end with the caller, because a caller could end them at will.
	fresh, answered := d.lookUp(context.WithoutCancel(ctx), id, s, unknown)
	return d.admit(id, s, fresh, answered), nil
}

// use returns the cached data of a system, and those of the devices that are not cached, each
// once.
func (d *Devices) use(id domain.SystemID, devices []domain.DeviceID) (*system, []domain.DeviceID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.systems[id]
	if s == nil {
		s = &system{querying: make(chan struct{}, 1), known: map[uint64]struct{}{}}
		s.querying <- struct{}{}
		d.systems[id] = s
		defer d.remember(costOfSystem)
	}
	d.uses++
	s.used = d.uses
	unknown := d.unknown(s, devices)
	if len(s.wanted)+len(unknown) <= maxWanted {
		s.wanted = append(s.wanted, unknown...)
	}
	return s, unknown
}

// unknown returns those of the devices that are not cached, each once. The caller holds d.mu.
func (d *Devices) unknown(s *system, devices []domain.DeviceID) (unknown []domain.DeviceID) {
	var seen map[uint64]struct{}
	for _, device := range devices {
		hash := d.hash(device)
		if _, known := s.known[hash]; known {
			continue
		}
		if _, twice := seen[hash]; twice {
			continue
		}
		if seen == nil {
			seen = map[uint64]struct{}{}
		}
		seen[hash] = struct{}{}
		unknown = append(unknown, device)
	}
	return unknown
}

func (d *Devices) hash(device domain.DeviceID) uint64 { return maphash.String(d.seed, string(device)) }

// lookUp returns which of the devices the rows do not have, and whether the rows answered. A
// refusal needs rows that contain everything that was in the log when it was considered.
func (d *Devices) lookUp(ctx context.Context, id domain.SystemID, s *system, devices []domain.DeviceID,
) (fresh []domain.DeviceID, answered bool) {
	d.mu.Lock()
	fresh = d.unknown(s, devices) // another caller's query may have included them
	caughtUp := s.due() || len(fresh) > s.room(d.limit)
	if len(fresh) == 0 || time.Since(s.failed) < recountAfter {
		d.mu.Unlock()
		return fresh, false
	}
	wanted := append(s.wanted, fresh...)
	s.wanted = nil
	d.mu.Unlock()
	for {
		if err := d.query(ctx, id, s, wanted, caughtUp); err != nil {
			d.mu.Lock()
			s.failed = time.Now()
			d.mu.Unlock()
			return fresh, false
		}
		d.mu.Lock()
		fresh = d.unknown(s, fresh)
		fits := len(fresh) <= s.room(d.limit)
		d.mu.Unlock()
		if caughtUp || fits {
			return fresh, true
		}
		caughtUp, wanted = true, fresh
	}
}

// query caches which of the devices the system has, according to the rows. With caughtUp it
// first waits for a bounded time until the rows have caught up with the log, and only then it
// counts: a count that lags would miss the devices appended since the last one.
func (d *Devices) query(ctx context.Context, id domain.SystemID, s *system, devices []domain.DeviceID, caughtUp bool) error {
	d.mu.Lock()
	due, appended := s.due(), s.appended
	caughtUp = caughtUp && time.Since(s.behind) >= recountAfter
	d.mu.Unlock()
	most := 0
	if caughtUp && d.catchUp(ctx, id, s) == nil && due {
		most = d.limit
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	known, count, err := d.rows.FindDevices(ctx, id, devices, most)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.learn(id, s, known)
	if due {
		s.counted = time.Now()
	}
	if most > 0 {
		s.count, s.appended, s.unverified = count, s.appended-appended, 0
	}
	return nil
}

// catchUp waits until the rows contain what is in the log now.
func (d *Devices) catchUp(ctx context.Context, id domain.SystemID, s *system) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	newest, err := d.log.Newest(ctx, id)
	if err == nil {
		err = d.rows.WaitForSystem(ctx, id, newest)
	}
	if err != nil {
		d.mu.Lock()
		s.behind = time.Now()
		d.mu.Unlock()
	}
	return err
}

// due reports whether the rows should be counted again.
func (s *system) due() bool { return time.Since(s.counted) >= recountAfter }

// room returns how many new devices the system may still have.
func (s *system) room(limit int) int {
	return max(limit-max(s.count+s.appended, len(s.known))-s.pending, 0)
}

// admit admits as many of the new devices as there is room for.
func (d *Devices) admit(id domain.SystemID, s *system, fresh []domain.DeviceID, answered bool) domain.Admission {
	if len(fresh) == 0 {
		return domain.Admission{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	room := s.room(d.limit)
	if !answered {
		room = max(d.limit-s.unverified, 0)
	}
	a, n := domain.Admission{Most: d.limit}, min(room, len(fresh))
	if n > 0 {
		s.pending += n
		if !answered {
			s.unverified += n
		}
		a.OnSettle = func(appended bool) { d.settle(id, s, fresh[:n], appended) }
	}
	if n < len(fresh) {
		a.Refused = make(map[domain.DeviceID]bool, len(fresh)-n)
		for _, device := range fresh[n:] {
			a.Refused[device] = true
		}
	}
	return a
}

func (d *Devices) settle(id domain.SystemID, s *system, devices []domain.DeviceID, appended bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.pending -= len(devices)
	if appended {
		s.appended += len(devices)
		d.learn(id, s, devices)
	}
}

// learn caches that the system has the devices. The caller holds d.mu.
func (d *Devices) learn(id domain.SystemID, s *system, devices []domain.DeviceID) {
	before := len(s.known)
	for _, device := range devices {
		s.known[d.hash(device)] = struct{}{}
	}
	if d.systems[id] == s { // still cached
		d.remember(len(s.known) - before)
	}
}

// remember adds to the size of the cache, and drops the systems that were used longest ago if
// it is too large. The caller holds d.mu.
func (d *Devices) remember(more int) {
	if d.remembered += more; d.remembered <= d.memory {
		return
	}
	type used struct {
		id domain.SystemID
		at uint64
	}
	var all []used
	for id, s := range d.systems {
		if s.pending == 0 {
			all = append(all, used{id, s.used})
		}
	}
	slices.SortFunc(all, func(a, b used) int { return cmp.Compare(a.at, b.at) })
	for _, u := range all {
		if d.remembered <= d.memory/2 {
			return
		}
		d.remembered -= costOfSystem + len(d.systems[u.id].known)
		delete(d.systems, u.id)
	}
}
