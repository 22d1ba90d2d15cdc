package legacy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
	"github.com/plugcast/plugcast/transport/bridge/shadow"
)

// comparison is a comparer that two goroutines feed. It outlives connections: the next
// connection reads the part of our log that was appended between the two.
type comparison struct {
	after domain.Position // everything in our log up to here was compared

	mu       sync.Mutex
	comparer *shadow.Comparer
	reported shadow.Counts // already in the report
}

func (c *comparison) do(work func(*shadow.Comparer)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	work(c.comparer)
}

// compareEvery is the interval at which events are settled that have waited long enough.
const compareEvery = 500 * time.Millisecond

// compare compares the events of both sides, until the connection ends.
func (s *systemLink) compare(ctx context.Context, conn *sioclient.Conn, before SavedState, state *bridge.State) error {
	s.noteSession(conn, before)
	now := time.Now()
	if s.comparison == nil {
		s.reportGap(conn, before, "no process compared in this time")
		if err := s.newComparison(ctx, now); err != nil {
			return err
		}
	} else {
		s.comparison.do(func(comparer *shadow.Comparer) { comparer.Up(shadow.There, now, conn.Recovered()) })
	}
	c := s.comparison
	pushDone := make(chan struct{})
	close(pushDone) // this mode emits nothing
	err := s.runParts(ctx, conn, state, pushDone, func() {},
		func(ctx context.Context) error {
			from, err := s.locate(ctx, c.after)
			if err != nil {
				return err
			}
			c.after = from
			return s.follow(ctx, conn, from, func(events []domain.Event) error {
				s.observeHere(c, events, state)
				return nil
			})
		},
		func(ctx context.Context) error { return s.observeThere(ctx, c, conn, state) },
		func(ctx context.Context) error { return s.settle(ctx, c) },
	)
	c.do(func(comparer *shadow.Comparer) { comparer.Down(shadow.There, conn.LastHeard()) })
	s.reportComparison(c)
	return err
}

// newComparison starts a comparison at the end of our log.
func (s *systemLink) newComparison(ctx context.Context, now time.Time) error {
	end, err := s.Reader.End(ctx, s.system.System.System)
	if err != nil {
		return fmt.Errorf("legacy: find the end of our log: %w", err)
	}
	comparer := shadow.New(s.config.shadowConfig())
	// The first events of one side may have no counterpart, because the other came just
	// before the connection.
	comparer.Down(shadow.There, now)
	comparer.Up(shadow.There, now, false)
	comparer.Take()
	s.comparison = &comparison{comparer: comparer, after: end, reported: comparer.Counts()}
	return nil
}

// observeHere feeds events of our log to the comparer.
func (s *systemLink) observeHere(c *comparison, events []domain.Event, state *bridge.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range events {
		e := &events[i]
		c.after = e.Position
		state.OnPush(func(f *bridge.Flow) { f.Moved(e.Position, domain.ImportResult{}) })
		device := e.Device()
		if !forwards(e.Type) || !s.system.Wants(e.Type) || device == "" {
			continue
		}
		payload, err := payloadOf(e)
		if err != nil {
			continue // an undecodable event has no payload to compare
		}
		// The time of the append, because e.Time may come from another deployment's clock.
		at := e.Position.Time()
		c.comparer.Observe(shadow.Here, shadow.Observation{
			Event: string(e.Type), Device: string(device), At: at, Members: payload.values(), Ref: e.Position.String(),
		})
	}
}

// observeThere feeds events of the server to the comparer until the connection ends.
func (s *systemLink) observeThere(ctx context.Context, c *comparison, conn *sioclient.Conn, state *bridge.State) error {
	for e := range conn.Events() {
		t := domain.EventType(e.Name)
		if forwards(t) && s.system.Wants(t) {
			o, own, err := s.observation(&e)
			switch {
			case err != nil:
				s.reporter.addRejected(&e, err)
			case own:
				s.reporter.count("echoes", 1)
			default:
				c.do(func(comparer *shadow.Comparer) { comparer.Observe(shadow.There, o) })
				state.OnPull(func(f *bridge.Flow) { f.Accepted++ })
			}
		}
		s.finish(ctx, conn, &e) // acknowledged too, or its emitter would fail because of a link that only compares
	}
	return conn.Err()
}

// observation reads an event of the server. own reports that this deployment emitted it.
func (s *systemLink) observation(e *sioclient.Event) (o shadow.Observation, own bool, err error) {
	if e.Binary {
		return o, false, errBinary
	}
	payload, m, err := parsePayload(e.Args)
	if err != nil {
		return o, false, err
	}
	if m != nil && m.Via == s.Deployment {
		return o, true, nil
	}
	if err := s.checkSystem(payload); err != nil {
		return o, false, err
	}
	device, err := identifier(payload["deviceId"])
	if err != nil {
		return o, false, fmt.Errorf("deviceId: %w", err)
	}
	if _, err := domain.ParseDeviceID(device); err != nil {
		return o, false, errors.New(domain.AsError(err).Detail)
	}
	return shadow.Observation{Event: e.Name, Device: device, At: time.Now(), Members: payload.values()}, false, nil
}

// settle lets the comparer decide about the events that have waited long enough, until ctx ends.
func (s *systemLink) settle(ctx context.Context, c *comparison) error {
	backoff.Every(ctx, compareEvery, func(now time.Time) {
		c.do(func(comparer *shadow.Comparer) { comparer.Advance(now) })
		s.reportComparison(c)
	})
	return ctx.Err()
}

// reportComparison moves the comparer's findings and counts to the report.
func (s *systemLink) reportComparison(c *comparison) {
	c.mu.Lock()
	found, counts, before := c.comparer.Take(), c.comparer.Counts(), c.reported
	c.reported = counts
	c.mu.Unlock()
	s.reporter.count("same", counts.Same-before.Same)
	s.reporter.count("uncompared", counts.Uncompared-before.Uncompared)
	for i := range found {
		s.reporter.add(findingOf(&found[i]))
	}
}

// findingOf converts a finding of the comparer to one of the report.
func findingOf(f *shadow.Finding) domain.Finding {
	finding := domain.Finding{Kind: domain.FindingKind(f.Kind), Members: f.Members, DelayMS: f.Delay.Milliseconds()}
	if f.Kind == shadow.Gap {
		from, to := f.From.UTC(), f.To.UTC()
		finding.From, finding.To = &from, &to
		finding.Detail = "the server does not remember what it emitted in this time; not compared"
		return finding
	}
	for _, side := range []struct {
		*shadow.Observation
		payload *[]byte
	}{{f.Here, (*[]byte)(&finding.Here)}, {f.There, (*[]byte)(&finding.There)}} {
		if side.Observation == nil {
			continue
		}
		finding.Event, finding.Device = domain.EventType(side.Event), domain.DeviceID(side.Device)
		*side.payload = mustJSON(side.Members)
		if at, err := domain.ParsePosition(side.Ref); err == nil && side.Ref != "" {
			finding.Through = &at
		}
		from := side.At.UTC()
		finding.From = &from
	}
	return finding
}
