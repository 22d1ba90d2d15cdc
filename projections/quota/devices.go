// Package quota bounds how many devices a system has, whichever way they come: dialled
// in, from the Shelly Cloud, published or over a bridge.
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
	// FindDevices returns which of the devices the system has, and how many it has in all,
	// counting up to most.
	FindDevices(ctx context.Context, system domain.SystemID, devices []domain.DeviceID, most int,
	) (known []domain.DeviceID, count int, err error)
	// WaitForSystem waits until the rows have what was appended up to a position.
	WaitForSystem(ctx context.Context, system domain.SystemID, at domain.Position) error
}

// Log is where devices become known.
type Log interface {
	// Newest returns a position at or after the newest event of the system.
	Newest(ctx context.Context, system domain.SystemID) (domain.Position, error)
}

const (
	// recountAfter is how old a count may be, and how long nobody asks again that does
	// not answer.
	recountAfter = 5 * time.Second
	// askWithin bounds each of two waits for an answer: for the rows to catch up with
	// the log, and for what they say.
	askWithin = time.Second
	// mostRemembered bounds the devices that are remembered as known, of all systems
	// together: about 20 bytes each. A system counts as another costOfSystem.
	mostRemembered = 1 << 20
	costOfSystem   = 16
	// mostWanted bounds the devices of waiting callers that one question is also about.
	mostWanted = 1000
)

// Devices is a [domain.DeviceQuota], the same for every system. It is safe for
// concurrent use.
//
// It asks nothing for devices that it knows. For others it makes one round trip to the
// database, one at a time per system and for all callers that wait, and counts the
// system's devices at most every 5 s.
//
// The quota is a soft one. A process does not see at once what others admit, so several
// that admit at the same moment may admit a few too many. While the database does not
// answer, publishing goes on, and each process admits as many new devices as a system
// may have in all. A device that is in the log but not settled yet may count twice, so
// the last free place may be refused once.
type Devices struct {
	most   int
	memory int // bounds remembered
	rows   Rows
	log    Log
	seed   maphash.Seed

	mu         sync.Mutex
	systems    map[domain.SystemID]*system
	remembered int
	uses       uint64
}

var _ domain.DeviceQuota = (*Devices)(nil)

// system is what is remembered of one system. Devices.mu guards all but asking.
type system struct {
	asking chan struct{} // has a token while nobody asks about the system

	known  map[uint64]struct{} // hashes of devices that the system has
	wanted []domain.DeviceID   // by callers that wait to ask
	used   uint64              // the number of the last use

	count    int // as the rows had it at counted
	appended int // new devices that were appended since
	open     int // new devices that are admitted and not settled
	blind    int // new devices that were admitted without an answer since the last count

	counted time.Time // when the rows were last counted, or that was tried
	failed  time.Time // when the rows last did not answer
	behind  time.Time // when the rows last did not catch up in time
}

// New makes a quota of so many devices per system.
func New(most int, rows Rows, log Log) *Devices {
	return &Devices{most: most, memory: mostRemembered, rows: rows, log: log, seed: maphash.MakeSeed(), systems: map[domain.SystemID]*system{}}
}

// Admit implements [domain.DeviceQuota].
func (d *Devices) Admit(ctx context.Context, id domain.SystemID, devices []domain.DeviceID) (domain.Admission, error) {
	s, unknown := d.use(id, devices)
	if len(unknown) == 0 {
		return domain.Admission{}, nil
	}
	select {
	case <-s.asking:
		defer func() { s.asking <- struct{}{} }()
	case <-ctx.Done():
		return domain.Admission{}, ctx.Err()
	}
	// The questions do not end with the caller, who could end them at will.
	fresh, answered := d.ask(context.WithoutCancel(ctx), id, s, unknown)
	return d.admit(id, s, fresh, answered), nil
}

// use returns what is remembered of a system, and which of the devices it is not known
// to have, each once.
func (d *Devices) use(id domain.SystemID, devices []domain.DeviceID) (*system, []domain.DeviceID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.systems[id]
	if s == nil {
		s = &system{asking: make(chan struct{}, 1), known: map[uint64]struct{}{}}
		s.asking <- struct{}{}
		d.systems[id] = s
		defer d.remember(costOfSystem)
	}
	d.uses++
	s.used = d.uses
	unknown := d.unknown(s, devices)
	if len(s.wanted)+len(unknown) <= mostWanted {
		s.wanted = append(s.wanted, unknown...)
	}
	return s, unknown
}

// unknown returns those of the devices that the system is not known to have, each once.
// d.mu is held.
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

// ask returns which of the devices the rows do not have, and whether the rows answered.
// A refusal is believed only of rows that have all that was in the log when it came up.
func (d *Devices) ask(ctx context.Context, id domain.SystemID, s *system, devices []domain.DeviceID,
) (fresh []domain.DeviceID, answered bool) {
	d.mu.Lock()
	fresh = d.unknown(s, devices) // others may have asked
	caughtUp := s.due() || len(fresh) > s.room(d.most)
	if len(fresh) == 0 || time.Since(s.failed) < recountAfter {
		d.mu.Unlock()
		return fresh, false
	}
	wanted := append(s.wanted, fresh...)
	s.wanted = nil
	d.mu.Unlock()
	for {
		if err := d.look(ctx, id, s, wanted, caughtUp); err != nil {
			d.mu.Lock()
			s.failed = time.Now()
			d.mu.Unlock()
			return fresh, false
		}
		d.mu.Lock()
		fresh = d.unknown(s, fresh)
		fits := len(fresh) <= s.room(d.most)
		d.mu.Unlock()
		if caughtUp || fits {
			return fresh, true
		}
		caughtUp, wanted = true, fresh
	}
}

// look learns from the rows which of the devices the system has, when they have caught
// up with the log if that is wanted and does not take too long. Only then it counts: a
// count that lags would miss what was appended since the last one.
func (d *Devices) look(ctx context.Context, id domain.SystemID, s *system, devices []domain.DeviceID, caughtUp bool) error {
	d.mu.Lock()
	due, appended := s.due(), s.appended
	caughtUp = caughtUp && time.Since(s.behind) >= recountAfter
	d.mu.Unlock()
	most := 0
	if caughtUp && d.catchUp(ctx, id, s) == nil && due {
		most = d.most
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
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
		s.count, s.appended, s.blind = count, s.appended-appended, 0
	}
	return nil
}

// catchUp waits until the rows have what is in the log now.
func (d *Devices) catchUp(ctx context.Context, id domain.SystemID, s *system) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
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

// due reports whether the rows are to be counted again.
func (s *system) due() bool { return time.Since(s.counted) >= recountAfter }

// room is how many new devices the system may still have.
func (s *system) room(most int) int {
	return max(most-max(s.count+s.appended, len(s.known))-s.open, 0)
}

// admit admits as many of the new devices as there is room for.
func (d *Devices) admit(id domain.SystemID, s *system, fresh []domain.DeviceID, answered bool) domain.Admission {
	if len(fresh) == 0 {
		return domain.Admission{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	room := s.room(d.most)
	if !answered {
		room = max(d.most-s.blind, 0)
	}
	a, n := domain.Admission{Most: d.most}, min(room, len(fresh))
	if n > 0 {
		s.open += n
		if !answered {
			s.blind += n
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
	s.open -= len(devices)
	if appended {
		s.appended += len(devices)
		d.learn(id, s, devices)
	}
}

// learn notes that the system has the devices. d.mu is held.
func (d *Devices) learn(id domain.SystemID, s *system, devices []domain.DeviceID) {
	before := len(s.known)
	for _, device := range devices {
		s.known[d.hash(device)] = struct{}{}
	}
	if d.systems[id] == s { // not forgotten
		d.remember(len(s.known) - before)
	}
}

// remember makes room for so much more, if need be: it forgets the systems that were
// used longest ago. d.mu is held.
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
		if s.open == 0 {
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
