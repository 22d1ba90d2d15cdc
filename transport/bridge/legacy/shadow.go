package legacy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
	"github.com/plugcast/plugcast/transport/bridge/shadow"
)

// comparison is a comparer that two goroutines feed. It outlives connections: what
// was said here meanwhile is read when the next one is there.
type comparison struct {
	after domain.Position // in our log: everything up to it was compared

	mu       sync.Mutex
	core     *shadow.Comparer
	reported shadow.Counts
}

// do works on the comparer.
func (c *comparison) do(work func(core *shadow.Comparer)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	work(c.core)
}

// compareEvery is the pace at which what has waited long enough is settled.
const compareEvery = 500 * time.Millisecond

// compare compares what both sides say, until the connection ends.
func (s *systemLink) compare(ctx context.Context, conn *sioclient.Conn, before SavedState, state *bridge.State) error {
	s.noteSession(conn, before)
	now := time.Now()
	if c := s.comparison; c == nil {
		s.reportGap(conn, before, "nobody compared")
		end, err := s.Reader.End(ctx, s.system.System.System)
		if err != nil {
			return fmt.Errorf("legacy: where our log is: %w", err)
		}
		s.comparison = &comparison{core: shadow.New(s.config.shadowConfig()), after: end}
		s.comparison.core.Down(shadow.There, now)
		s.comparison.core.Up(shadow.There, now, false) // the first moments are excused
		s.comparison.core.Take()
		s.comparison.reported = s.comparison.core.Counts()
	} else {
		c.do(func(core *shadow.Comparer) { core.Up(shadow.There, now, conn.Recovered()) })
	}
	c := s.comparison
	quiet := make(chan struct{})
	close(quiet)
	err := s.runParts(ctx, conn, state, quiet, func() {},
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
	c.do(func(core *shadow.Comparer) { core.Down(shadow.There, conn.LastHeard()) })
	s.reportComparison(c)
	return err
}

// observeHere takes events of our log.
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
			continue // undecodable: there is nothing to compare
		}
		// When our log got it: its own time may be of another deployment's clock.
		at := e.Position.Time()
		c.core.Observe(shadow.Here, shadow.Observation{
			Event: string(e.Type), Device: string(device), At: at, Members: payload.values(), Ref: e.Position.String(),
		})
	}
}

// observeThere takes what the other side says until the connection ends.
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
				c.do(func(core *shadow.Comparer) { core.Observe(shadow.There, o) })
				state.OnPull(func(f *bridge.Flow) { f.Accepted++ })
			}
		}
		if e.Offset != "" {
			s.saved.change(func(k *SavedState) { k.Offset = e.Offset })
		}
		if e.Ack != "" { // or the emission would fail because somebody watches
			_ = conn.Acknowledge(ctx, e.Ack) // a broken connection ends the loop by itself
		}
	}
	return conn.Err()
}

// observation reads an event of the other side. own says that it came from here.
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

// settle decides about what has waited, now and then, until ctx ends.
func (s *systemLink) settle(ctx context.Context, c *comparison) error {
	ticker := time.NewTicker(compareEvery)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			c.do(func(core *shadow.Comparer) { core.Advance(now) })
			s.reportComparison(c)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// report puts what was found into the reporter.
func (s *systemLink) reportComparison(c *comparison) {
	c.mu.Lock()
	found, counts, before := c.core.Take(), c.core.Counts(), c.reported
	c.reported = counts
	c.mu.Unlock()
	s.reporter.count("same", counts.Same-before.Same)
	s.reporter.count("uncompared", counts.Uncompared-before.Uncompared)
	for i := range found {
		s.reporter.add(findingOf(&found[i]))
	}
}

// findingOf puts a difference into the words of the report.
func findingOf(f *shadow.Finding) domain.Finding {
	finding := domain.Finding{Kind: domain.FindingKind(f.Kind), Members: f.Members, DelayMS: f.Delay.Milliseconds()}
	if f.Kind == shadow.Gap {
		from, to := f.From.UTC(), f.To.UTC()
		finding.From, finding.To = &from, &to
		finding.Detail = "the other side does not remember what it said meanwhile: not compared"
		return finding
	}
	for _, seen := range []struct {
		*shadow.Observation
		payload *[]byte
	}{{f.Here, (*[]byte)(&finding.Here)}, {f.There, (*[]byte)(&finding.There)}} {
		if seen.Observation == nil {
			continue
		}
		finding.Event, finding.Device = domain.EventType(seen.Event), domain.DeviceID(seen.Device)
		*seen.payload = mustJSON(seen.Members)
		if at, err := domain.ParsePosition(seen.Ref); err == nil && seen.Ref != "" {
			finding.Through = &at
		}
		when := seen.At.UTC()
		finding.From = &when
	}
	return finding
}
