package heartbeats

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
)

const (
	// sweepEvery is how exact the times of silence are kept.
	sweepEvery = 500 * time.Millisecond
	// sweepBatch is how many devices one sweep takes.
	sweepBatch = 1000
	// unwatchedAfter is how long nobody can have looked before what looks silent is
	// given time to be heard: Redis was away, or the whole platform. An owner that
	// dies is replaced sooner.
	unwatchedAfter = 15 * time.Second
	// heardWithin is that time: what a device has that lost its socket.
	heardWithin = 10 * time.Second
	// markEvery is how often it is written that somebody looked.
	markEvery = 5 * time.Second
	// writers is how many events a sweep appends at a time. They share round
	// trips and fsyncs.
	writers = 64
	// eventActor is who the events are by.
	eventActor = "plugcast"
)

// silence is a device that was found silent, as the board has it.
type silence struct {
	Since  int64                `json:"since"` // ms; names this silence
	At     int64                `json:"at"`    // ms; last heard, 0 when that is not known
	Reason domain.OfflineReason `json:"reason"`
	Told   string               `json:"told"` // "" until dealt with
	Back   int64                `json:"back"` // ms; heard again, 0 when not

	device Device
}

// How a silence was dealt with.
const (
	toldEvent = "event" // the log has it
	toldKnown = "known" // the state had it already
	toldBack  = "back"  // it is over
)

// Devices is where the owner looks up what is known of devices.
type Devices interface {
	// DevicesAt returns those of the devices that are known, as of the position of
	// the log or later, waiting for it until ctx ends.
	DevicesAt(ctx context.Context, system domain.SystemID, ids []domain.DeviceID, atLeast domain.Position) (map[domain.DeviceID]*domain.Device, error)
}

// Watch writes one device-offline-status for each device of the partition that
// falls silent, and one when it is back, until ctx ends. It is for the partition's
// owner. If two run for a moment, or one dies half-way, each event is still
// written once: its idempotency key names the silence.
//
// After a time in which nobody could look, devices are heard first: nobody is
// found silent for ten seconds.
//
// It decides on what is known with all that is in the log, so that the event says
// what is last known of the relay.
func (b *Board) Watch(ctx context.Context, partition int, devices Devices) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := b.sweep(ctx, partition, devices)
		if err != nil && !away && ctx.Err() == nil {
			b.logger.Warn("heartbeats: cannot look for silent devices; trying again", "partition", partition, "error", err)
		}
		away = err != nil
	}
}

// sweep deals with what there is, as long as there is a full batch of it.
func (b *Board) sweep(ctx context.Context, partition int, devices Devices) error {
	for {
		pending, err := b.pending(ctx, partition)
		if err != nil || len(pending) == 0 {
			return err
		}
		bySystem := map[domain.SystemID][]silence{}
		for _, s := range pending {
			bySystem[s.device.System] = append(bySystem[s.device.System], s)
		}
		var failed error
		for system, silences := range bySystem {
			// One system's trouble must not silence the others.
			if err := b.tell(ctx, partition, system, silences, devices); err != nil {
				failed = fmt.Errorf("system %s: %w", system, err)
			}
		}
		if failed != nil || len(pending) < sweepBatch {
			return failed
		}
	}
}

func (b *Board) pending(ctx context.Context, partition int) ([]silence, error) {
	pairs, err := sweepScript.Run(ctx, b.log.Client(), b.keys(partition), sweepBatch,
		unwatchedAfter.Milliseconds(), heardWithin.Milliseconds(), markEvery.Milliseconds()).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	pending := make([]silence, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		s := silence{device: parseMember(pairs[i])}
		if err := json.Unmarshal([]byte(pairs[i+1]), &s); err != nil {
			return nil, fmt.Errorf("sweep: read what is kept of %s: %w", pairs[i], err)
		}
		pending = append(pending, s)
	}
	return pending, nil
}

// tell writes the events of one system's silences and notes that they are
// written.
func (b *Board) tell(ctx context.Context, partition int, system domain.SystemID, silences []silence, devices Devices) error {
	newest, err := b.log.Newest(ctx, system)
	if err != nil {
		return err
	}
	ids := make([]domain.DeviceID, len(silences))
	for i := range silences {
		ids[i] = silences[i].device.Device
	}
	known, err := devices.DevicesAt(ctx, system, ids, newest)
	if err != nil {
		return fmt.Errorf("look devices up: %w", err)
	}
	told := make([]string, len(silences))
	group, writing := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range silences {
		s := &silences[i]
		event, how := s.event(known[s.device.Device])
		if event == nil {
			told[i] = how
			continue
		}
		group.Go(func() error {
			if err := b.append(writing, s, event); err != nil {
				return err
			}
			told[i] = how
			return nil
		})
	}
	failed := group.Wait()
	if err := b.done(ctx, partition, silences, told); err != nil {
		return err
	}
	return failed
}

// event decides what is to be written about the silence, and how it is dealt with
// then. Nothing is written that the state says already: a device that nobody ever
// published has no state to be silent in, and one that another deployment published
// last is held there, whatever became of its socket here.
func (s *silence) event(known *domain.Device) (*domain.DeviceOfflineStatus, string) {
	online := s.Told != ""
	how := toldBack
	if !online {
		how = toldEvent
	}
	if known == nil || known.Origin != "" {
		return nil, quietly(how)
	}
	saidSo := known.Online != nil && *known.Online == online
	if saidSo && s.Told != toldEvent {
		return nil, quietly(how)
	}
	event := &domain.DeviceOfflineStatus{DeviceID: s.device.Device, Online: online, Reason: s.Reason}
	if known.RelayOn != nil {
		event.RelayOn = domain.Some(*known.RelayOn)
	}
	at := s.At
	if online {
		event.Reason, at = domain.ReasonBack, s.Back
	}
	switch {
	case at > 0:
		event.LastSeenAt = domain.Some(time.UnixMilli(at).UTC())
	case known.LastSeenAt != nil:
		event.LastSeenAt = domain.Some(known.LastSeenAt.UTC())
	}
	return event, how
}

func quietly(how string) string {
	if how == toldEvent {
		return toldKnown
	}
	return how
}

func (b *Board) append(ctx context.Context, s *silence, data *domain.DeviceOfflineStatus) error {
	event, err := domain.NewEvent(s.device.System, *data, domain.Cause{Actor: eventActor})
	if err != nil {
		return err
	}
	key := "silent"
	if data.Online {
		key = "back"
	}
	_, err = b.log.Append(ctx, []domain.Event{event}, domain.AppendOptions{Idempotency: &domain.Idempotency{
		Scope: eventActor, Key: key + "/" + string(s.device.Device) + "/" + strconv.FormatInt(s.Since, 10),
	}})
	return err
}

func (b *Board) done(ctx context.Context, partition int, silences []silence, told []string) error {
	var args []any
	for i := range silences {
		if told[i] != "" {
			args = append(args, silences[i].device.member(), silences[i].Since, told[i])
		}
	}
	if len(args) == 0 {
		return nil
	}
	if err := doneScript.Run(ctx, b.log.Client(), b.keys(partition), args...).Err(); err != nil {
		return fmt.Errorf("note what was written: %w", err)
	}
	return nil
}
