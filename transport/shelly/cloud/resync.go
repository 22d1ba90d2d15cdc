package cloud

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

const (
	maxHeldBytes = 4 << 20 // of notices that are held back, as they arrived
	maxUnlisted  = 1000    // devices that all_status lacks, remembered
	// snapshotAge is how old a state in a fresh all_status may be: no
	// documentation promises the newest.
	snapshotAge = 10 * time.Second
)

// resync is the state of fetching snapshots, which are the states of all devices.
type resync struct {
	synced    bool // a snapshot has been applied on this socket
	fetching  bool
	asked     time.Time // when the last fetch began
	fetched   chan snapshot
	fetchAt   time.Time // when to check whether to fetch
	fetchWait backoff.Backoff
	recheck   bool // devices have left: fetch again soon

	held      []notice // since the fetch began, or since the socket opened
	heldBytes int
	overflown bool // more notices came than may be held

	unlisted map[domain.DeviceID]struct{} // devices that caused a fetch
}

// snapshot is the result of a fetch.
type snapshot struct {
	all       allStatus
	rows      map[domain.DeviceID][]*domain.Device // of new devices
	admission domain.Admission                     // of their channels; see rowsOfNew
	err       error
}

func newResync(cfg Config, now time.Time) resync {
	return resync{fetched: make(chan snapshot, 1), fetchAt: now, fetchWait: newBackoff(cfg), unlisted: map[domain.DeviceID]struct{}{}}
}

// handle handles a message of the socket.
func (s *session) handle(r received) {
	switch m := r.message.(type) {
	case notice:
		s.handleNotice(m, r.size)
	case response:
		s.settle(m)
	case socketError:
		if !s.warned {
			s.warned = true
			s.logger.Warn("the Shelly Cloud reports an error", "text", s.secret.scrub(m.text))
		}
	case ignored:
		s.logger.Debug("ignored an event of the Shelly Cloud", "event", s.secret.scrub(m.event))
	}
}

// handleNotice applies a notice, and holds it back while a snapshot is fetched. The
// status of an unknown device causes a fetch, because the device is new on the account.
func (s *session) handleNotice(n notice, size int) {
	if s.synced {
		id := n.device.resolve(s.isMember)
		if d := s.devices[id]; d != nil {
			s.applyNotice(d, n)
			s.publish(d, time.Now())
		} else if n.status != nil && !s.fetching && s.noteUnlisted(id) {
			s.fetch(time.Now())
		}
		if !s.fetching {
			return
		}
	}
	s.hold(n, size)
}

// noteUnlisted reports whether an unknown device is to cause a fetch. Each does so
// once, because the answer never has devices that others share with the account.
func (s *session) noteUnlisted(id domain.DeviceID) bool {
	if _, noted := s.unlisted[id]; noted || len(s.unlisted) >= maxUnlisted {
		return false
	}
	s.unlisted[id] = struct{}{}
	return true
}

// hold keeps a notice until the snapshot arrives. If there are too many, the snapshot
// is of no use without them, and another is fetched after it.
func (s *session) hold(n notice, size int) {
	if s.overflown {
		return
	}
	if len(s.held) >= s.cfg.Buffer || s.heldBytes+size > maxHeldBytes {
		s.overflown, s.held, s.heldBytes = true, nil, 0
		return
	}
	s.held, s.heldBytes = append(s.held, n), s.heldBytes+size
}

func (s *session) applyNotice(d *device, n notice) {
	now := time.Now()
	online, aboutOnline := n.online.Get()
	if n.status != nil || aboutOnline {
		d.heard = now
	}
	switch {
	case aboutOnline:
		s.setOnline(d, online)
	case n.status != nil:
		d.delta(n, now)
		// A status that arrives late, after the cloud reported the device as offline,
		// does not bring the device back: only the cloud's next report does.
		if d.online.IsZero() {
			s.setOnline(d, true)
		}
	case n.name != "":
		d.state.SetName(n.name)
	}
}

func (s *session) setOnline(d *device, online bool) {
	d.online = domain.Some(online)
	d.state.SetOnline(online)
	for _, channel := range d.state.Channels() {
		s.parts.Heartbeats.Report(domain.DeviceRef{System: s.conn.System, Device: channel}, online)
	}
}

// fetchOrWait fetches a snapshot if that is due: on a new socket, when the last
// snapshot is old, and when an online device has been quiet for long. An idle device
// is as quiet as a dead one, but the cloud knows the difference.
func (s *session) fetchOrWait(now time.Time) {
	if !s.synced || now.Sub(s.asked) >= s.cfg.ResyncEvery {
		clear(s.unlisted)
		s.fetch(now)
		return
	}
	next := s.asked.Add(s.cfg.ResyncEvery)
	soonest := s.asked.Add(s.cfg.SilentAfter) // at most one fetch per SilentAfter
	if s.recheck {
		next = earliest(next, soonest)
	}
	for _, d := range s.devices {
		if online, _ := d.online.Get(); !online || d.state.WakeupPeriod() > 0 {
			continue
		}
		quiet := d.heard.Add(s.cfg.SilentAfter)
		if quiet.Before(soonest) {
			quiet = soonest
		}
		next = earliest(next, quiet)
	}
	if !now.Before(next) {
		s.fetch(now)
		return
	}
	s.fetchAt = next
}

func (s *session) fetch(now time.Time) {
	s.fetching, s.asked, s.overflown, s.recheck = true, now, false, false
	if s.synced {
		s.held, s.heldBytes = nil, 0
	}
	s.work.Go(func() {
		var f snapshot
		f.err = isolate.Run(s.logger, where, func() (err error) {
			if f.all, err = s.api.allStatus(s.ctx, s.grant.at, s.grant.token); err == nil {
				f.rows, f.admission, err = s.rowsOfNew(s.ctx, f.all)
			}
			return err
		})
		s.fetched <- f
	})
}

// rowsOfNew asks the quota to admit the channels of the devices that are new on the account,
// and returns the stored rows of the devices that are not refused. A device is refused if all
// of its channels are, so the last admitted device brings all of its channels. A device
// without channels, such as a gateway, holds no place. The Admission's Refused has the ids of
// the refused devices.
func (s *session) rowsOfNew(ctx context.Context, all allStatus) (map[domain.DeviceID][]*domain.Device, domain.Admission, error) {
	channels, wanted := map[domain.DeviceID][]domain.DeviceID{}, []domain.DeviceID(nil)
	for _, d := range all.devices {
		id := d.id.resolve(s.isMember)
		if m := s.membershipOf(id); m == byRow || m == onAccount {
			continue
		}
		shown := shelly.NewDevice(s.conn, id, nil, s.cfg.Policy)
		shown.Full(d.status, time.Now())
		channels[id] = shown.Channels()
		wanted = append(wanted, channels[id]...)
	}
	admission, err := s.parts.Quota.Admit(ctx, s.conn.System, wanted)
	if err != nil {
		return nil, domain.Admission{}, fmt.Errorf("cloud: admit devices: %w", err)
	}
	isAdmitted := func(channel domain.DeviceID) bool { return !admission.Refused[channel] }
	rows, refused := map[domain.DeviceID][]*domain.Device{}, map[domain.DeviceID]bool{}
	for id := range channels {
		if len(channels[id]) > 0 && !slices.ContainsFunc(channels[id], isAdmitted) {
			refused[id] = true
			continue
		}
		if rows[id], err = s.parts.Known.Channels(ctx, s.conn.System, id); err != nil {
			admission.Settle(false)
			return nil, domain.Admission{}, fmt.Errorf("cloud: look up device: %w", err)
		}
	}
	admission.Refused = refused
	return rows, admission, nil
}

// noteRefused tells operators which devices of the account are beyond the quota, once for
// each device.
func (s *session) noteRefused(admission domain.Admission) {
	const reason = string(domain.CodeTooManyDevices)
	noted := s.refused
	s.refused = admission.Refused
	detail, fresh := admission.Refusal().Detail, 0
	for id := range admission.Refused {
		if noted[id] {
			continue
		}
		fresh++
		s.parts.Refusals.Count(reason)
		if fresh <= shelly.RefusalsKept {
			s.parts.Refusals.Keep(s.conn, domain.DeviceRefusal{Reason: reason, DeviceID: id, Detail: detail})
		}
	}
	if fresh > 0 {
		s.logger.Warn("devices of the account are refused", "devices", fresh, "reason", reason, "detail", detail)
	}
}

// apply applies a snapshot, and then the notices that arrived while it was fetched.
func (s *session) apply(f snapshot) *ending {
	s.fetching = false
	now := time.Now()
	switch {
	case rejects(f.err):
		end := rejectedToken(f.err)
		return &end
	case f.err != nil:
		if s.ctx.Err() == nil {
			s.logger.Warn("cannot fetch the states", "error", s.secret.scrub(f.err.Error()))
		}
		s.asked = time.Time{}
		s.fetchAt = now.Add(s.fetchWait.Next())
		return nil
	case s.overflown:
		s.logger.Warn("too many events arrived while the states were fetched: fetching them once more")
		f.admission.Settle(false)
		s.fetch(now)
		return nil
	}
	s.fetchWait.Reset()
	s.noteRefused(f.admission)
	stamps := make(map[domain.DeviceID]stamp, len(f.all.devices))
	for _, entry := range f.all.devices {
		id := entry.id.resolve(s.isMember)
		if f.admission.Refused[id] {
			s.noteUnlisted(id) // its notices are no reason to fetch
			continue
		}
		stamps[id] = s.applyEntry(id, entry, f.rows[id])
	}
	f.admission.Settle(true) // the outbox retries until the log has the channels
	if f.all.refused > 0 {
		s.logger.Warn("cannot read the states of some devices", "devices", f.all.refused)
	} else {
		s.dropMissing(stamps)
	}
	for _, n := range s.held {
		d := s.devices[n.device.resolve(s.isMember)]
		switch {
		case d == nil:
		case n.status != nil && stampOf(d.gen, n.status, time.Now()).before(stamps[d.id]):
			d.heard = time.Now() // the snapshot is newer
		default:
			s.applyNotice(d, n)
		}
	}
	s.held, s.heldBytes = nil, 0
	full := s.outbox.full()
	for _, d := range s.devices { // also for updates that waited when the last socket ended
		if full { // tick publishes them when there is room
			d.due, s.dueAt = now, now
		} else {
			s.publish(d, time.Now())
		}
	}
	s.fetchAt = now // to find out when the next is due
	if !s.synced {
		s.synced = true
		s.mu.Lock()
		s.live = true
		s.mu.Unlock()
		s.setState(domain.StateConnected, "")
		s.logger.Info("connected to the Shelly Cloud", "devices", len(s.devices))
	}
	return nil
}

// applyEntry applies one entry of a snapshot and returns its stamp.
func (s *session) applyEntry(id domain.DeviceID, entry deviceStatus, rows []*domain.Device) stamp {
	d := s.devices[id]
	if d == nil {
		if rows == nil {
			rows = s.rows[id]
		}
		delete(s.rows, id) // they are out of date from now on
		d = &device{id: id, state: shelly.NewDevice(s.conn, id, rows, s.cfg.Policy)}
		s.devices[id] = d
		s.setMembership(id, onAccount)
	}
	if entry.gen != "" {
		d.gen = entry.gen
	}
	at := stampOf(d.gen, entry.status, time.Now())
	// A status that arrived just before the fetch may be newer than the snapshot.
	if justHeard := s.asked.Sub(d.heard) < snapshotAge; !d.state.Ready() || !justHeard || !at.before(d.stamp) {
		d.full(entry.status, time.Now())
	}
	if online, ok := entry.online.Get(); ok {
		s.setOnline(d, online)
	}
	return at
}

// dropMissing forgets the devices that a snapshot lacks. It appends nothing about
// them: they may be on another account, or no longer shared. Should the cloud have left
// them out by mistake, the next snapshot follows soon.
func (s *session) dropMissing(present map[domain.DeviceID]stamp) {
	for id := range s.devices {
		if _, ok := present[id]; ok {
			continue
		}
		delete(s.devices, id)
		s.recheck = true
		s.setMembership(id, left)
		s.logger.Info("a device has left the account", "device", id)
	}
}
