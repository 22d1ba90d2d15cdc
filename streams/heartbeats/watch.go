package heartbeats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

const (
	// sweepEvery is how exact the times of silence are kept.
	sweepEvery = 500 * time.Millisecond
	// sweepBatch is how many devices are found silent in one call, and how many of a
	// system are told of at a time.
	sweepBatch = 1000
	// sweepTimeout bounds one call.
	sweepTimeout = 5 * time.Second
	// tellingAtOnce is for how many systems of a partition events are written at a
	// time, and how many a sweep names. It is more than can be expected to begin to
	// hang together.
	tellingAtOnce = 256
	// tellTimeout bounds one turn of a system, and turnTime is when a turn takes no
	// further batch: the next sweep goes on.
	tellTimeout = 30 * time.Second
	turnTime    = 10 * time.Second
	// appendTimeout bounds one append, and doneTimeout the note of what was appended.
	appendTimeout = 10 * time.Second
	doneTimeout   = 5 * time.Second
	// unwatchedAfter is how long nobody can have looked before what looks silent is
	// given time to be heard: Redis was away, or the whole platform. An owner that
	// dies is replaced sooner.
	unwatchedAfter = 15 * time.Second
	// heardWithin is that time: what a device has that lost its socket.
	heardWithin = 10 * time.Second
	// markEvery is how often it is written that somebody looked.
	markEvery = 5 * time.Second
	// writers is how many events of a system are appended at a time. They share round
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
// falls silent, and one when it is back, until ctx ends. Each system is told by
// itself: one whose look-ups or appends fail or hang delays its own devices only, and
// a device that fails delays itself. A device that was heard and silent again before
// the first silence was written has one silence.
//
// Watch is for the partition's owner. If two run for a moment, or one dies half-way, each event is still
// written once: its idempotency key names the silence.
//
// After a time in which nobody could look, devices are heard first: nobody is
// found silent for ten seconds.
//
// It decides on what is known with all that is in the log, so that the event says
// what is last known of the relay.
func (b *Board) Watch(ctx context.Context, partition int, devices Devices) {
	systems := isolate.NewKeys[domain.SystemID](b.logger, "heartbeats", tellingAtOnce, tellTimeout)
	defer systems.Wait()
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		due, err := b.sweep(ctx, partition)
		for _, system := range due {
			systems.Go(ctx, system, func(ctx context.Context) error { return b.tellAll(ctx, partition, system, devices) })
		}
		if err != nil && !away && ctx.Err() == nil {
			b.logger.Warn("heartbeats: cannot look for silent devices; trying again", "partition", partition, "error", err)
		}
		away = err != nil
	}
}

// sweep finds the devices that are silent, and returns systems that there is
// something to write about: not all, if there are very many, but each in its turn.
func (b *Board) sweep(ctx context.Context, partition int) ([]domain.SystemID, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	var systems []domain.SystemID
	for found := sweepBatch; found == sweepBatch; {
		answer, err := sweepScript.Run(ctx, b.log.Client(), b.keys(partition), sweepBatch, unwatchedAfter.Milliseconds(),
			heardWithin.Milliseconds(), markEvery.Milliseconds(), tellingAtOnce).StringSlice()
		if err == nil {
			found, err = strconv.Atoi(answer[0])
		}
		if err != nil {
			return systems, fmt.Errorf("sweep: %w", err)
		}
		systems = systems[:0]
		for _, system := range answer[1:] {
			systems = append(systems, domain.SystemID(system))
		}
	}
	return systems, nil
}

// tellAll writes the events of a system, page by page. Devices that fail do not keep
// it from those on the next page.
func (b *Board) tellAll(ctx context.Context, partition int, system domain.SystemID, devices Devices) error {
	var failed error
	for began, after, more := time.Now(), "", true; more && time.Since(began) < turnTime; {
		var pending []silence
		var err error
		pending, after, more, err = b.pending(ctx, partition, system, after)
		if err != nil {
			return err
		}
		if err := b.tell(ctx, partition, system, pending, devices); err != nil {
			if !errors.Is(err, errSome) {
				return err
			}
			failed = err
		}
	}
	return failed
}

// pending returns at most a batch of what there is to write about a system, behind
// the member after, and the member that ends the batch. more says that it was full.
func (b *Board) pending(
	ctx context.Context, partition int, system domain.SystemID, after string,
) (found []silence, last string, more bool, err error) {
	pairs, err := pendingScript.Run(ctx, b.log.Client(), b.keys(partition), string(system), after, sweepBatch).StringSlice()
	if err != nil {
		return nil, after, false, fmt.Errorf("read pending silences: %w", err)
	}
	var unreadable []any
	for i := 0; i+1 < len(pairs); i += 2 {
		last = pairs[i]
		s := silence{device: parseMember(last)}
		if err := json.Unmarshal([]byte(pairs[i+1]), &s); err != nil {
			unreadable = append(unreadable, last)
			continue
		}
		found = append(found, s)
	}
	if len(unreadable) > 0 {
		b.logger.Warn("heartbeats: the stored silences cannot be read; rebuilding them", "system", system,
			"devices", len(unreadable), "first", unreadable[0])
		if err := mendScript.Run(ctx, b.log.Client(), b.keys(partition), unreadable...).Err(); err != nil {
			return nil, after, false, fmt.Errorf("mend silences: %w", err)
		}
	}
	return found, last, len(pairs) == 2*sweepBatch, nil
}

// errSome says that some events could not be appended, and why the first could not.
var errSome = errors.New("some events could not be written")

// tell writes the events of some silences of a system and notes which are
// written.
func (b *Board) tell(ctx context.Context, partition int, system domain.SystemID, silences []silence, devices Devices) error {
	if len(silences) == 0 {
		return nil
	}
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
	errs := make([]error, len(silences))
	var group errgroup.Group // without a context: an append that fails does not end the others
	group.SetLimit(writers)
	for i := range silences {
		s := &silences[i]
		data, how := s.event(known[s.device.Device])
		if data == nil {
			told[i] = how
			continue
		}
		event, err := domain.NewEvent(system, *data, domain.Cause{Actor: eventActor})
		if err != nil { // it never can be written
			b.logger.Error("heartbeats: skipped a silence that no event can represent", "system", system, "device", s.device.Device,
				"error", err)
			told[i] = quietly(how)
			continue
		}
		group.Go(func() error {
			errs[i] = isolate.Run(b.logger, "heartbeats", func() error { return b.append(ctx, s, event, data.Online) })
			if errs[i] == nil {
				told[i] = how
			}
			return nil
		})
	}
	_ = group.Wait()
	if err := b.done(ctx, partition, silences, told); err != nil {
		return err
	}
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errSome, silences[i].device.Device, err)
		}
	}
	return nil
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

func (b *Board) append(ctx context.Context, s *silence, event domain.Event, online bool) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	key := "silent"
	if online {
		key = "back"
	}
	_, err := b.log.Append(ctx, []domain.Event{event}, domain.AppendOptions{Idempotency: &domain.Idempotency{
		Scope: eventActor, Key: key + "/" + string(s.device.Device) + "/" + strconv.FormatInt(s.Since, 10),
	}})
	return err
}

// done notes how silences were dealt with, also when the time of the turn is over:
// what was written was written.
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), doneTimeout)
	defer cancel()
	if err := doneScript.Run(ctx, b.log.Client(), b.keys(partition), args...).Err(); err != nil {
		return fmt.Errorf("note what was written: %w", err)
	}
	return nil
}
