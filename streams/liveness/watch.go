package liveness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

const (
	// sweepEvery is the interval between sweeps, and so the precision of the times.
	sweepEvery = 500 * time.Millisecond
	// sweepBatch is the most devices that one call moves or returns.
	sweepBatch = 1000
	// sweepTimeout bounds one sweep.
	sweepTimeout = 5 * time.Second
	// systemsAtOnce is the most systems of a partition for which events are written at a
	// time, and the most that a sweep returns. It is more than can be expected to hang at
	// the same time.
	systemsAtOnce = 256
	// turnTimeout bounds one turn of a system. After turnLimit a turn begins no further
	// batch: the next sweep continues.
	turnTimeout = 30 * time.Second
	turnLimit   = 10 * time.Second
	// appendTimeout bounds one append, and recordTimeout one call of recordScript.
	appendTimeout = 10 * time.Second
	recordTimeout = 5 * time.Second
	// sweepGap is the longest pause between sweeps after which devices still count as
	// silent at once. A longer pause means that Redis or the whole platform was away; an
	// owner that dies is replaced sooner.
	sweepGap = 15 * time.Second
	// resumeGrace is how long devices may be heard again after such a pause: as long as a
	// device that lost its socket.
	resumeGrace = 10 * time.Second
	// markEvery is how often the time of the last sweep is written.
	markEvery = 5 * time.Second
	// maxAppends is the most concurrent appends of a system. They share round trips and
	// fsyncs.
	maxAppends = 64
	// eventActor is the actor of the events.
	eventActor = "plugcast"
)

// silence is one silence of a device, as seen:silent holds it.
type silence struct {
	Since   int64                `json:"since"` // ms; identifies this silence
	At      int64                `json:"at"`    // ms; last heard, 0 if that is not known
	Reason  domain.OfflineReason `json:"reason"`
	Outcome string               `json:"outcome"` // "" until the owner has dealt with it
	Back    int64                `json:"back"`    // ms; heard again, 0 if it was not

	device domain.DeviceRef
}

// The outcomes of a silence.
const (
	outcomeEvent = "event" // an event was appended
	outcomeKnown = "known" // the device's state said so already
	outcomeBack  = "back"  // the device is back, and that is dealt with
)

// Devices is where the owner of a partition reads the state of devices.
type Devices interface {
	// DevicesAt returns the state of those of the devices that exist, as of the given position
	// of the log or later. It waits for that position until ctx ends.
	DevicesAt(
		ctx context.Context, system domain.SystemID, ids []domain.DeviceID, atLeast domain.Position,
	) (map[domain.DeviceID]*domain.Device, error)
}

// Watch appends one device-offline-status for each device of the partition that falls silent,
// and one when it is back, until ctx ends. Systems are independent: if reads or appends of one
// fail or hang, only its own devices are delayed, and a device that fails delays only itself.
// If a device is heard and silent again before its first silence was written, it has one
// silence.
//
// Watch is for the owner of the partition. If two owners run for a moment, or one dies
// half-way, each event is still written once: its idempotency key names the silence.
//
// After a time without sweeps, Watch finds no device silent for ten seconds, so that devices
// can be heard first.
//
// Watch reads the state of a device as of the newest entry of the log, so that the event
// carries the last known state of the relay.
func (r *Registry) Watch(ctx context.Context, partition int, devices Devices) {
	systems := isolate.NewKeyedPool[domain.SystemID](r.logger, "liveness", systemsAtOnce, turnTimeout)
	defer systems.Wait()
	away := false
	backoff.Every(ctx, sweepEvery, func(time.Time) {
		due, err := r.sweep(ctx, partition)
		for _, system := range due {
			systems.Go(ctx, system, func(ctx context.Context) error { return r.reportAll(ctx, partition, system, devices) })
		}
		if err != nil && !away && ctx.Err() == nil {
			r.logger.Warn("liveness: cannot sweep for silent devices; trying again", "partition", partition, "error", err)
		}
		away = err != nil
	})
}

// sweep finds the devices that are silent, and returns systems with devices to write about. If
// there are very many such systems, it returns some of them, in rotation.
func (r *Registry) sweep(ctx context.Context, partition int) ([]domain.SystemID, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	var systems []domain.SystemID
	for found := sweepBatch; found == sweepBatch; {
		answer, err := sweepScript.Run(ctx, r.log.Client(), r.keys(partition), sweepBatch, sweepGap.Milliseconds(),
			resumeGrace.Milliseconds(), markEvery.Milliseconds(), systemsAtOnce).StringSlice()
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

// reportAll writes the events of a system, page by page. Devices that fail do not keep it from
// the next page.
func (r *Registry) reportAll(ctx context.Context, partition int, system domain.SystemID, devices Devices) error {
	var failed error
	for began, after, more := time.Now(), "", true; more && time.Since(began) < turnLimit; {
		var pending []silence
		var err error
		pending, after, more, err = r.pending(ctx, partition, system, after)
		if err != nil {
			return err
		}
		if err := r.report(ctx, partition, system, pending, devices); err != nil {
			if !errors.Is(err, errPartial) {
				return err
			}
			failed = err
		}
	}
	return failed
}

// pending returns at most a batch of the devices of a system about which there is something to
// write: those behind the member after. last is the member that ends the batch, and more
// reports whether the batch was full.
func (r *Registry) pending(
	ctx context.Context, partition int, system domain.SystemID, after string,
) (found []silence, last string, more bool, err error) {
	pairs, err := pendingScript.Run(ctx, r.log.Client(), r.keys(partition), string(system), after, sweepBatch).StringSlice()
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
		r.logger.Warn("liveness: stored silences cannot be decoded; rebuilding them", "system", system,
			"devices", len(unreadable), "first", unreadable[0])
		if err := rebuildScript.Run(ctx, r.log.Client(), r.keys(partition), unreadable...).Err(); err != nil {
			return nil, after, false, fmt.Errorf("rebuild silences: %w", err)
		}
	}
	return found, last, len(pairs) == 2*sweepBatch, nil
}

// errPartial says that some events could not be appended. It is wrapped with the first cause.
var errPartial = errors.New("some events could not be written")

// report writes the events of some silences of a system and records which are written.
func (r *Registry) report(ctx context.Context, partition int, system domain.SystemID, silences []silence, devices Devices) error {
	if len(silences) == 0 {
		return nil
	}
	newest, err := r.log.Newest(ctx, system)
	if err != nil {
		return err
	}
	ids := make([]domain.DeviceID, len(silences))
	for i := range silences {
		ids[i] = silences[i].device.Device
	}
	known, err := devices.DevicesAt(ctx, system, ids, newest)
	if err != nil {
		return fmt.Errorf("read devices: %w", err)
	}
	outcomes := make([]string, len(silences))
	errs := make([]error, len(silences))
	var group errgroup.Group // without a context: an append that fails does not end the others
	group.SetLimit(maxAppends)
	for i := range silences {
		s := &silences[i]
		data, outcome := s.event(known[s.device.Device])
		if data == nil {
			outcomes[i] = outcome
			continue
		}
		event, err := domain.NewEvent(system, *data, domain.Cause{Actor: eventActor})
		if err != nil { // it can never be written
			r.logger.Error("liveness: skipped a silence that no event can represent", "system", system, "device", s.device.Device,
				"error", err)
			outcomes[i] = withoutEvent(outcome)
			continue
		}
		group.Go(func() error {
			errs[i] = isolate.Run(r.logger, "liveness", func() error { return r.append(ctx, s, event, data.Online) })
			if errs[i] == nil {
				outcomes[i] = outcome
			}
			return nil
		})
	}
	_ = group.Wait()
	if err := r.record(ctx, partition, silences, outcomes); err != nil {
		return err
	}
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errPartial, silences[i].device.Device, err)
		}
	}
	return nil
}

// event returns the event to write about the silence, and the silence's outcome once that is
// written. The event is nil if the state says the same already. It is also nil for a device
// without a state, because its publisher never published it, and for a device whose state came
// from another deployment: that deployment decides, regardless of a socket here.
func (s *silence) event(known *domain.Device) (*domain.DeviceOfflineStatus, string) {
	online := s.Outcome != ""
	outcome := outcomeBack
	if !online {
		outcome = outcomeEvent
	}
	if known == nil || known.Origin != "" {
		return nil, withoutEvent(outcome)
	}
	unchanged := known.Online != nil && *known.Online == online
	if unchanged && s.Outcome != outcomeEvent {
		return nil, withoutEvent(outcome)
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
	return event, outcome
}

// withoutEvent returns the outcome of a silence for which no event was needed.
func withoutEvent(outcome string) string {
	if outcome == outcomeEvent {
		return outcomeKnown
	}
	return outcome
}

func (r *Registry) append(ctx context.Context, s *silence, event domain.Event, online bool) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	key := "silent"
	if online {
		key = "back"
	}
	_, err := r.log.Append(ctx, []domain.Event{event}, domain.AppendOptions{Idempotency: &domain.Idempotency{
		Scope: eventActor, Key: key + "/" + string(s.device.Device) + "/" + strconv.FormatInt(s.Since, 10),
	}})
	return err
}

// record stores the outcomes of silences, even if the time of the turn is over, because the
// events are written.
func (r *Registry) record(ctx context.Context, partition int, silences []silence, outcomes []string) error {
	var args []any
	for i := range silences {
		if outcomes[i] != "" {
			args = append(args, memberOf(silences[i].device), silences[i].Since, outcomes[i])
		}
	}
	if len(args) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := recordScript.Run(ctx, r.log.Client(), r.keys(partition), args...).Err(); err != nil {
		return fmt.Errorf("record outcomes: %w", err)
	}
	return nil
}
