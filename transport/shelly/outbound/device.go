package outbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/rpc"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// lookupTimeout bounds the look-ups of an admission.
const lookupTimeout = 10 * time.Second

// decode decodes and handles a frame, or ends the session.
func (s *session) decode(message []byte, now time.Time) {
	f, err := rpc.Decode(message)
	switch {
	case err == nil:
		s.handle(&f, now)
	case errors.Is(err, rpc.ErrNoFrame): // a kind of frame from newer firmware
	default:
		s.noteName(rpc.SourceOf(message))
		s.refuseFor("bad-frame", closeBadFrame, err.Error())
	}
}

// handle handles one frame.
func (s *session) handle(f *rpc.Frame, now time.Time) {
	if s.device == nil && !s.admit(f.Source, now) {
		return
	}
	if f.Source != s.ref().Device {
		s.refuseFor("src-changed", closeChanged, "it changed its src to "+string(f.Source))
		return
	}
	switch {
	case f.Kind == rpc.KindResponse:
		s.handleResponse(f, now)
	case f.Kind == rpc.KindRequest:
		_ = s.ws.Write(rpc.NoHandler(f)) // it fails when the socket is closed
	case f.Method == rpc.NotifyFullStatus:
		s.full(f.Params, now)
	case f.Method == rpc.NotifyStatus:
		s.delta(f.Params, now)
	}
	if !s.device.Ready() {
		s.requestStatus(now)
	}
}

// admit admits a device under the name that it gives itself, or ends the session.
func (s *session) admit(base domain.DeviceID, now time.Time) bool {
	server := s.server
	if !s.mayConnect(base, now) {
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, lookupTimeout)
	defer cancel()
	s.mu.Lock()
	s.base = base
	s.mu.Unlock()
	s.noteName(base)
	if old := server.setHolder(s); old != nil {
		old.end(closeReplaced, endReplaced)
		select {
		case <-old.ended: // its last updates come before ours
		case <-ctx.Done():
		}
		if !s.mayConnect(base, time.Now()) {
			return false // the old session has just failed
		}
	}
	known, err := server.parts.Known.Channels(ctx, s.credential.System, base)
	if err != nil {
		s.reject(base, err)
		return false
	}
	if len(known) == 0 {
		release, refusal, err := server.limit.reserve(ctx, s.credential.ConnectionRef, base)
		switch {
		case err != nil:
			s.reject(base, err)
			return false
		case refusal != "":
			s.refuseFor("too-many-devices", closeTooMany, refusal)
			return false
		}
		s.release = release
	}
	s.offline = map[domain.DeviceID]bool{}
	for _, row := range known {
		s.offline[row.DeviceID] = row.Online != nil && !*row.Online
	}
	s.device = shelly.NewDevice(s.credential.ConnectionRef, base, known, server.config.Policy)
	s.device.SetOnline(true)
	return true
}

// mayConnect reports whether the device has no cooldown, or ends the session.
func (s *session) mayConnect(base domain.DeviceID, now time.Time) bool {
	wait := s.server.admission.cooldown(domain.DeviceRef{System: s.credential.System, Device: base}, now)
	if wait > 0 {
		s.noteName(base)
		s.refuseFor("cooldown", closeCooldown(int(wait.Seconds())+1),
			"it has just been refused and must not reconnect for "+wait.Round(time.Second).String())
	}
	return wait == 0
}

// reject ends the session of a device whose state cannot be loaded.
func (s *session) reject(base domain.DeviceID, err error) {
	s.noteName(base)
	if s.ctx.Err() == nil {
		s.server.parts.Logger.Warn("outbound: cannot admit a device",
			"system", s.credential.System, "connection", s.credential.ID, "device", base, "error", err)
	}
	s.refuseFor("unavailable", closeLater, "its stored state could not be read")
}

// full applies a whole status.
func (s *session) full(doc status.Document, now time.Time) {
	s.replaceStale(doc, now)
	s.device.Full(doc, now)
	s.watch(s.device.Channels(), s.offline, s.silentAfter())
}

func (s *session) delta(doc status.Document, now time.Time) {
	s.device.Delta(s.withoutStale(doc, now), now)
	if s.device.Ready() {
		s.watch(s.device.Channels(), s.offline, s.silentAfter())
	}
}

// silentAfter returns how long the device counts as alive after a frame: longer for a
// sleeping device, and never less than the time to answer a ping.
func (s *session) silentAfter() time.Duration {
	return max(s.server.config.SilentAfter, 2*s.device.WakeupPeriod(), s.server.pongWait())
}

// publish appends the device's updates that are due.
func (s *session) publish(now time.Time) {
	if s.device == nil {
		return
	}
	updates := s.device.Take(now)
	if len(updates) == 0 {
		return
	}
	err := shelly.Publish(s.ctx, s.server.parts.Events, s.credential.ConnectionRef, updates)
	if err != nil {
		if s.ctx.Err() == nil {
			s.server.parts.Logger.Error("outbound: the log refuses a device's update", "device", s.ref().Device, "error", err)
		}
		s.end(closeLater, endClosed)
	}
	s.releasePlace(err == nil)
	if s.events.add(now, len(updates)) > s.server.config.MaxEvents {
		s.refuseFor("flood", closeFlood, fmt.Sprintf("its messages caused over %d events in a minute", s.server.config.MaxEvents))
	}
}

// releasePlace releases the place of a new device, if it has one.
func (s *session) releasePlace(appended bool) {
	if s.release != nil {
		s.release(appended)
		s.release = nil
	}
}

// watch adds new channels to the heartbeats.
func (s *session) watch(channels []domain.DeviceID, offline map[domain.DeviceID]bool, within time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	s.within = within
	for _, id := range channels {
		ref := domain.DeviceRef{System: s.credential.System, Device: id}
		if slices.Contains(s.watched, ref) {
			continue
		}
		s.watched = append(s.watched, ref)
		s.server.parts.Heartbeats.Open(ref, s.id, within)
		if offline[id] {
			// The registry may have lost the state that the log has.
			s.server.parts.Heartbeats.Report(ref, true)
		}
	}
}

// alive tells the heartbeats that the channels live.
func (s *session) alive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return // it would undo the report of the end
	}
	for _, ref := range s.watched {
		s.server.parts.Heartbeats.Alive(ref, s.id, s.within)
	}
}

// reportEnd tells the heartbeats how long the device still counts as alive, and returns the
// reason of the end.
func (s *session) reportEnd(period time.Duration) endReason {
	s.mu.Lock()
	s.closing = true
	why, watched := s.reason, s.watched
	s.mu.Unlock()
	c := &s.server.config
	for _, ref := range watched {
		switch why {
		case endStopped, endReplaced:
		case endRestart:
			s.server.parts.Heartbeats.Close(ref, s.id, max(c.SilentAfter, 2*period), domain.ReasonSocketClosed)
		case endTimedOut:
			s.server.parts.Heartbeats.Close(ref, s.id, 2*period, domain.ReasonHeartbeatMissed)
		default:
			reason := domain.ReasonSocketClosed
			if period > 0 {
				reason = domain.ReasonHeartbeatMissed // a sleeping device always closes its socket
			}
			s.server.parts.Heartbeats.Close(ref, s.id, max(c.CloseGrace, 2*period), reason)
		}
	}
	return why
}
