// Package quota bounds how many devices a system has, regardless of how they come: by dialling
// in, from the Shelly Cloud, by publishing or over a bridge.
package quota

import (
	"cmp"
	"context"
	"errors"
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
	// catchUpTimeout bounds how long a query waits for the rows to catch up with the log, and
	// queryTimeout how long for their answer. Together a caller waits for 1 s at most, and for
	// hardly longer in a queue, because no query begins after [domain.MaxQuotaWait].
	catchUpTimeout = 600 * time.Millisecond
	queryTimeout   = 400 * time.Millisecond
	// maxRemembered bounds the cached devices of all systems together: about 20 bytes each.
	// A system itself counts as costOfSystem devices.
	maxRemembered = 1 << 20
	costOfSystem  = 16
	// maxWanted bounds the devices of waiting callers that one query includes, and maxAbsent
	// the devices that a system is remembered not to have.
	maxWanted = 1000
	maxAbsent = 1000
)

// Devices is a [domain.DeviceQuota] with the same limit for every system. It is safe for
// concurrent use.
//
// It queries nothing for cached devices. For other devices it makes one round trip to the
// database, one at a time per system and for all waiting callers together, and counts the
// system's devices at most every 5 s. Until the next count, a device that is refused again
// costs nothing.
//
// The quota is approximate. A process does not see at once which devices other processes admit,
// so concurrent processes may together admit a few too many, and a process that has refused a
// device may refuse it for 5 s more after another process has admitted it. While the database
// does not answer, or lags behind the log, publishing continues, and each process admits as many
// new devices as a system may have in all. A device that is in the log but not settled yet may
// count twice, so the last free place may be refused once.
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
	failed     time.Time // time when the rows of any system last did not answer: all are in one database
}

var _ domain.DeviceQuota = (*Devices)(nil)

// system is the cached data of one system. Devices.mu guards all fields but querying.
type system struct {
	querying chan struct{} // holds a token while no query about the system runs

	known  map[uint64]struct{} // hashes of devices that the system is known to have
	absent map[uint64]struct{} // hashes of devices that the system did not have since the last count
	wanted []domain.DeviceID   // unknown devices of callers that wait for a query
	used   uint64              // number of the last use

	count     int            // number of devices in the rows at counted
	confirmed int            // number of known devices that the rows were found to have
	appended  int            // number of other known devices, appended since the last count
	pending   map[uint64]int // number of callers that append an unknown device, by its hash

	counted time.Time // time of the last count, or attempt to count
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
	s, unknown, verified := d.use(id, devices)
	if len(unknown) == 0 {
		return domain.Admission{}, nil
	}
	if !verified {
		var err error
		if verified, err = d.lookUp(ctx, id, s, unknown); err != nil {
			return domain.Admission{}, err
		}
	}
	return d.admit(id, s, unknown, verified), nil
}

// use returns the cached data of a system, those of the devices that are not cached, each once,
// and whether none of these needs a query.
func (d *Devices) use(id domain.SystemID, devices []domain.DeviceID) (s *system, unknown []domain.DeviceID, verified bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s = d.systems[id]; s == nil {
		s = &system{
			querying: make(chan struct{}, 1),
			known:    map[uint64]struct{}{}, absent: map[uint64]struct{}{}, pending: map[uint64]int{},
		}
		s.querying <- struct{}{}
		d.systems[id] = s
		defer d.remember(costOfSystem)
	}
	d.uses++
	s.used = d.uses
	if unknown = d.unknown(s, devices); len(unknown) == 0 {
		return s, nil, true
	}
	if verified = d.absent(s, unknown); !verified && len(s.wanted)+len(unknown) <= maxWanted {
		s.wanted = append(s.wanted, unknown...)
	}
	return s, unknown, verified
}

// absent reports whether the system is remembered not to have any of the devices. The caller
// holds d.mu.
func (d *Devices) absent(s *system, devices []domain.DeviceID) bool {
	return !s.due() && !slices.ContainsFunc(devices, func(device domain.DeviceID) bool {
		_, absent := s.absent[d.hash(device)]
		return !absent
	})
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

// lookUp caches which of the devices the system has. It reports whether those that are still
// unknown are new for certain, or fit in any case. A refusal needs rows that contain everything
// that was in the log when it was considered.
func (d *Devices) lookUp(ctx context.Context, id domain.SystemID, s *system, devices []domain.DeviceID) (verified bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, domain.MaxQuotaWait)
	defer cancel()
	select {
	case <-s.querying:
		defer func() { s.querying <- struct{}{} }()
	case <-waiting.Done():
	}
	if waiting.Err() != nil {
		if err := ctx.Err(); errors.Is(err, context.Canceled) {
			return false, err
		}
		return false, nil
	}
	d.mu.Lock()
	fresh := d.unknown(s, devices) // another caller's query may have included them
	if len(fresh) == 0 || d.absent(s, fresh) {
		d.mu.Unlock()
		return true, nil
	}
	exact := s.due() || !d.fit(s, fresh)
	wanted := append(s.wanted, fresh...)
	s.wanted = nil
	d.mu.Unlock()
	for {
		caughtUp := exact && d.catchUp(waiting, id, s)
		if !d.query(ctx, id, s, wanted, caughtUp) {
			return false, nil
		}
		d.mu.Lock()
		fresh = d.unknown(s, fresh)
		fit := d.fit(s, fresh)
		d.mu.Unlock()
		if exact || fit {
			return caughtUp || fit, nil
		}
		exact, wanted = true, fresh
	}
}

// query caches which of the devices the system has, according to the rows, and reports whether
// they answered. It counts the system's devices only if the rows have caught up with the log: a
// count that lags would miss the devices appended since the last one.
func (d *Devices) query(ctx context.Context, id domain.SystemID, s *system, devices []domain.DeviceID, caughtUp bool) bool {
	d.mu.Lock()
	paused := time.Since(d.failed) < recountAfter
	due, appended, most := s.due(), s.appended, 0
	d.mu.Unlock()
	if paused {
		return false
	}
	if caughtUp && due {
		most = d.limit
	}
	// The query does not end with the caller, because a caller could end it at will.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
	defer cancel()
	known, count, err := d.rows.FindDevices(ctx, id, devices, most)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.failed = time.Now()
		return false
	}
	if due {
		s.counted = time.Now()
		d.forgetAbsent(id, s)
	}
	s.confirmed += d.learn(id, s, known)
	if caughtUp {
		d.learnAbsent(id, s, devices)
	}
	if most > 0 {
		s.count, s.appended = count, s.appended-appended
	}
	return true
}

// catchUp waits until the rows contain what is in the log now, and reports whether they do. It
// waits only until the deadline of ctx, but does not end when ctx is canceled.
func (d *Devices) catchUp(ctx context.Context, id domain.SystemID, s *system) bool {
	d.mu.Lock()
	paused := time.Since(s.behind) < recountAfter || time.Since(d.failed) < recountAfter
	d.mu.Unlock()
	if paused {
		return false
	}
	last, _ := ctx.Deadline()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), last)
	defer cancel()
	waiting, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	newest, err := d.log.Newest(waiting, id)
	if err == nil {
		err = d.rows.WaitForSystem(waiting, id, newest)
	}
	if err != nil && ctx.Err() == nil { // unless too little time was left
		d.mu.Lock()
		s.behind = time.Now()
		d.mu.Unlock()
	}
	return err == nil
}

// due reports whether the rows should be counted again.
func (s *system) due() bool { return time.Since(s.counted) >= recountAfter }

// room returns how many new devices the system may still have. If they are not verified, the
// devices that were in the rows at the last count do not count: some of the new ones may be among
// them.
func (s *system) room(limit int, verified bool) int {
	room := limit - s.appended - len(s.pending)
	if verified {
		room -= max(s.count, s.confirmed)
	}
	return max(room, 0)
}

// fit reports whether there is room for all of the unknown devices. Those that another caller
// appends have their places already. The caller holds d.mu.
func (d *Devices) fit(s *system, unknown []domain.DeviceID) bool {
	places := 0
	for _, device := range unknown {
		if s.pending[d.hash(device)] == 0 {
			places++
		}
	}
	return places <= s.room(d.limit, true)
}

// admit admits as many of the devices as there is room for.
func (d *Devices) admit(id domain.SystemID, s *system, devices []domain.DeviceID, verified bool) domain.Admission {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, room := domain.Admission{Most: d.limit}, s.room(d.limit, verified)
	var admitted []domain.DeviceID
	for _, device := range d.unknown(s, devices) {
		hash := d.hash(device)
		if s.pending[hash] == 0 {
			if room == 0 {
				if a.Refused == nil {
					a.Refused = map[domain.DeviceID]bool{}
				}
				a.Refused[device] = true
				continue
			}
			room--
		}
		s.pending[hash]++
		admitted = append(admitted, device)
	}
	if admitted != nil {
		a.OnSettle = func(appended bool) { d.settle(id, s, admitted, appended) }
	}
	return a
}

func (d *Devices) settle(id domain.SystemID, s *system, devices []domain.DeviceID, appended bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, device := range devices {
		hash := d.hash(device)
		if s.pending[hash]--; s.pending[hash] <= 0 {
			delete(s.pending, hash)
		}
	}
	if appended {
		s.appended += d.learn(id, s, devices)
	}
}

// learn caches that the system has the devices. It returns how many of them were unknown. The
// caller holds d.mu.
func (d *Devices) learn(id domain.SystemID, s *system, devices []domain.DeviceID) (added int) {
	before, size := len(s.known), s.size()
	for _, device := range devices {
		hash := d.hash(device)
		s.known[hash] = struct{}{}
		delete(s.absent, hash)
		delete(s.pending, hash) // known devices need no places
	}
	d.resized(id, s, size)
	return len(s.known) - before
}

// learnAbsent caches that the system does not have those of the devices that are unknown. The
// caller holds d.mu.
func (d *Devices) learnAbsent(id domain.SystemID, s *system, devices []domain.DeviceID) {
	size := s.size()
	for _, device := range d.unknown(s, devices) {
		if len(s.absent) < maxAbsent {
			s.absent[d.hash(device)] = struct{}{}
		}
	}
	d.resized(id, s, size)
}

// forgetAbsent empties the cache of devices that the system does not have. The caller holds d.mu.
func (d *Devices) forgetAbsent(id domain.SystemID, s *system) {
	size := s.size()
	clear(s.absent)
	d.resized(id, s, size)
}

// size returns what the cached data of the system count towards Devices.remembered.
func (s *system) size() int { return costOfSystem + len(s.known) + len(s.absent) }

// resized adjusts the size of the cache after that of a system changed. The caller holds d.mu.
func (d *Devices) resized(id domain.SystemID, s *system, before int) {
	if d.systems[id] == s { // still cached
		d.remember(s.size() - before)
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
		if len(s.pending) == 0 {
			all = append(all, used{id, s.used})
		}
	}
	slices.SortFunc(all, func(a, b used) int { return cmp.Compare(a.at, b.at) })
	for _, u := range all {
		if d.remembered <= d.memory/2 {
			return
		}
		d.remembered -= d.systems[u.id].size()
		delete(d.systems, u.id)
	}
}
