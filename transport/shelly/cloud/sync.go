package cloud

import (
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

// take works on a message of the socket.
func (s *session) take(h heard) {
	switch m := h.message.(type) {
	case Response:
		s.answer(m)
	case Failure:
		if !s.warned {
			s.warned = true
			s.logger.Warn("the Shelly Cloud reports an error", "text", s.secret.scrub(m.Text))
		}
	case Ignored:
		s.logger.Debug("an event of the Shelly Cloud is ignored", "event", s.secret.scrub(m.Event))
	case StatusOnChange:
		s.takeOf(m.Device, h, true)
	case Online:
		s.takeOf(m.Device, h, false)
	case Settings:
		s.takeOf(m.Device, h, false)
	}
}

// takeOf works on a message about a device. Before the first snapshot it is kept
// back. Later, a device that nobody knows is asked after: it is new on the account.
func (s *session) takeOf(id WireID, h heard, seen bool) {
	if !s.synced {
		s.keep(h)
		return
	}
	d := s.devices[id.Resolve(s.isKnown)]
	if d != nil {
		s.hear(d, h.message)
	}
	if d == nil && seen && !s.fetching && s.strange(id.Resolve(s.isKnown)) {
		s.fetch(time.Now())
	}
	if s.fetching {
		s.keep(h)
	}
}

// strange reports whether a device is one to ask after: once, because those that
// others share with the account are never in the answer.
func (s *session) strange(id domain.DeviceID) bool {
	if _, asked := s.strangers[id]; asked || len(s.strangers) >= maxStrangers {
		return false
	}
	s.strangers[id] = struct{}{}
	return true
}

// keep holds a message back until the snapshot is there. When there are too many,
// the snapshot is worth nothing without them, and another is fetched after it.
func (s *session) keep(h heard) {
	if s.overflown {
		return
	}
	if len(s.kept) >= s.cfg.Buffer || s.keptBytes+h.size > maxBufferBytes {
		s.overflown, s.kept, s.keptBytes = true, nil, 0
		return
	}
	s.kept, s.keptBytes = append(s.kept, h), s.keptBytes+h.size
}

// hear applies a message to its device.
func (s *session) hear(d *held, m Message) {
	now := time.Now()
	switch m := m.(type) {
	case StatusOnChange:
		d.heard = now
		d.delta(m, time.Now())
		// One that comes late, after Online said that the device is gone, does not
		// bring it back: that is for Online to say.
		if d.online.IsZero() {
			s.setOnline(d, true)
		}
	case Online:
		d.heard = now
		s.setOnline(d, m.Online)
	case Settings:
		if name := m.name(); name != "" {
			d.device.SetName(name)
			d.dirty = true
		}
	}
	s.mark(d)
}

func (s *session) setOnline(d *held, online bool) {
	d.online = domain.Some(online)
	d.device.SetOnline(online)
	d.dirty = true
	for _, channel := range d.device.Channels() {
		s.parts.Heartbeats.Report(shelly.DeviceRef{System: s.conn.System, Device: channel}, online)
	}
}

// fetchOrWait fetches all states when that is due: at first, when all are old, and
// when an online device has been quiet for long. An idle device is quiet as well
// as a dead one, so the cloud is asked, which knows.
func (s *session) fetchOrWait(now time.Time) {
	if !s.synced || now.Sub(s.asked) >= s.cfg.ResyncEvery {
		s.strangers = map[domain.DeviceID]struct{}{}
		s.fetch(now)
		return
	}
	next := s.asked.Add(s.cfg.ResyncEvery)
	if s.recheck {
		next = s.asked.Add(min(s.cfg.SilentAfter, s.cfg.ResyncEvery))
	}
	for _, d := range s.devices {
		if online, _ := d.online.Get(); !online || d.device.WakeupPeriod() > 0 {
			continue
		}
		quiet := d.heard.Add(s.cfg.SilentAfter)
		if !now.Before(quiet) {
			quiet = now
		}
		// At most once per SilentAfter, whoever is quiet.
		if at := s.asked.Add(s.cfg.SilentAfter); quiet.Before(at) {
			quiet = at
		}
		if quiet.Before(next) {
			next = quiet
		}
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
		s.kept, s.keptBytes = nil, 0
	}
	s.work.Go(func() {
		var f fetch
		f.err = isolate.Run(s.logger, where, func() (err error) {
			if f.all, err = s.acc.allStatus(s.ctx, s.grant.at, s.grant.token); err == nil {
				f.rows, err = s.channelsOf(s.ctx, f.all)
			}
			return err
		})
		s.fetched <- f
	})
}

// apply takes a snapshot, and then what came while it was fetched.
func (s *session) apply(f fetch) *ending {
	s.fetching = false
	now := time.Now()
	switch {
	case rejects(f.err):
		return &ending{rejected: true, reason: reasonRejected, err: f.err}
	case f.err != nil:
		if s.ctx.Err() == nil {
			s.logger.Warn("the states cannot be fetched", "error", s.secret.scrub(f.err.Error()))
		}
		s.asked = time.Time{}
		s.fetchAt = now.Add(s.fetchWait.Next())
		return nil
	case s.overflown:
		s.logger.Warn("more came than can be kept while the states were fetched: once more")
		s.fetch(now)
		return nil
	}
	s.fetchWait.Reset()
	of := make(map[domain.DeviceID]stamp, len(f.all.devices))
	for _, entry := range f.all.devices {
		id := entry.id.Resolve(s.isKnown)
		of[id] = s.applyOne(id, entry, f.rows[id])
	}
	if f.all.refused > 0 {
		s.logger.Warn("states of some devices cannot be read", "devices", f.all.refused)
	} else {
		s.letGo(of)
	}
	for _, h := range s.kept {
		s.replay(h.message, of)
	}
	s.kept, s.keptBytes = nil, 0
	s.fetchAt = now // to be looked at
	if !s.synced {
		s.synced = true
		s.connected()
	}
	return nil
}

func (s *session) applyOne(id domain.DeviceID, entry deviceStatus, rows []*domain.Device) stamp {
	d := s.devices[id]
	if d == nil {
		if rows == nil {
			rows = s.rows[id]
		}
		delete(s.rows, id) // they are old from now on
		d = &held{id: id, device: shelly.NewDevice(s.conn, id, rows, s.cfg.Policy)}
		s.devices[id] = d
		s.setStanding(id, onAccount)
	}
	if entry.gen != "" {
		d.gen = entry.gen
	}
	at := stampOf(d.gen, entry.status, time.Now())
	// What was heard just before the states were asked for may be newer than they.
	if justHeard := s.asked.Sub(d.heard) < snapshotAge; !d.device.Ready() || !justHeard || !at.before(d.stamp) {
		d.full(entry.status, time.Now())
	}
	d.dirty = true // what waited when the last socket ended waits still
	if online, ok := entry.online.Get(); ok {
		s.setOnline(d, online)
	}
	s.mark(d)
	return at
}

// letGo forgets the devices that are not on the account any more. Nothing is said of
// them: they may be on another's, or shared no longer. Should it be a mistake of the
// vendor's, the states are soon fetched again.
func (s *session) letGo(of map[domain.DeviceID]stamp) {
	for id := range s.devices {
		if _, there := of[id]; there {
			continue
		}
		delete(s.devices, id)
		s.recheck = true
		s.setStanding(id, left)
		s.logger.Info("a device has left the account", "device", id)
	}
}

// replay applies a message that was kept back, unless the snapshot is newer.
func (s *session) replay(m Message, of map[domain.DeviceID]stamp) {
	var id WireID
	switch m := m.(type) {
	case StatusOnChange:
		id = m.Device
	case Online:
		id = m.Device
	case Settings:
		id = m.Device
	}
	d := s.devices[id.Resolve(s.isKnown)]
	if d == nil {
		return
	}
	if change, ok := m.(StatusOnChange); ok && stampOf(d.gen, change.Status, time.Now()).before(of[d.id]) {
		d.heard = time.Now()
		return
	}
	s.hear(d, m)
}

// connected says so, behind the updates that the snapshot brought.
func (s *session) connected() {
	s.phase.Store(domain.StateConnected)
	if s.said != domain.StateConnected {
		s.said = domain.StateConnected
		s.says = s.changed(domain.StateConnected, "")
	}
	s.mu.Lock()
	s.live = true
	s.mu.Unlock()
	s.logger.Info("connected to the Shelly Cloud", "devices", len(s.devices))
}
