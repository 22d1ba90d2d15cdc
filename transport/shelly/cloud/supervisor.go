package cloud

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/shelly"
)

// Supervisor runs the sessions of the partitions that this process owns. Its methods
// are safe for concurrent use.
type Supervisor struct {
	env

	mu         sync.Mutex // taken before a session's, never after
	partitions map[int]*partition
	workers    map[domain.SystemID]map[domain.ConnectionID]*worker
}

var _ shelly.Holder = (*Supervisor)(nil)

// env has the dependencies of the supervisor and its sessions.
type env struct {
	cfg       Config
	parts     Parts
	http      *http.Client
	throttles *throttles
}

// partition is one that this process owns or has owned.
type partition struct {
	running chan struct{}   // holds a value while Run works on the partition
	ctx     context.Context // that Run's, from when it starts workers on; otherwise nil
	workers sync.WaitGroup
}

// New returns a Supervisor. It starts nothing: see [Supervisor.Run].
func New(cfg Config, parts Parts) (*Supervisor, error) {
	if parts.Store == nil || parts.Secrets == nil || parts.Known == nil || parts.Events == nil || parts.Heartbeats == nil ||
		parts.Quota == nil || parts.Refusals == nil {
		return nil, errors.New("cloud: all parts but the logger are required")
	}
	if parts.Logger == nil {
		parts.Logger = slog.New(slog.DiscardHandler)
	}
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Supervisor{
		env:        env{cfg: cfg, parts: parts, http: newHTTPClient(cfg.RequestTimeout), throttles: newThrottles(cfg.RequestEvery)},
		partitions: map[int]*partition{}, workers: map[domain.SystemID]map[domain.ConnectionID]*worker{},
	}, nil
}

// Run runs the sessions of a partition until ctx ends, which means that this process
// no longer owns the partition. It returns when all of their sockets are closed. A
// second call for the same partition waits until the first has returned.
func (s *Supervisor) Run(ctx context.Context, partition int) {
	p := s.partition(partition)
	select {
	case p.running <- struct{}{}:
		defer func() { <-p.running }()
	case <-ctx.Done():
		return
	}
	if backoff.Sleep(ctx, s.cfg.TakeoverDelay) != nil {
		return
	}
	// From here on, Changed takes effect at once. The list that is read next has all
	// changes before that.
	s.mu.Lock()
	p.ctx = ctx
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		p.ctx = nil
		s.mu.Unlock()
		p.workers.Wait()
	}()
	retry := newBackoff(s.cfg)
	for {
		connections, err := s.parts.Store.Connections(ctx, partition)
		if err == nil {
			for _, c := range connections {
				if c.Kind == domain.ConnectionShellyCloud {
					s.wake(partition, c.ConnectionRef, 0)
				}
			}
			break
		}
		if ctx.Err() == nil {
			s.parts.Logger.Error("cannot read the connections of a partition; trying again", "partition", partition, "error", err)
		}
		if retry.Wait(ctx) != nil {
			return
		}
	}
	<-ctx.Done()
}

func (s *Supervisor) partition(number int) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partitions[number] == nil {
		s.partitions[number] = &partition{running: make(chan struct{}, 1)}
	}
	return s.partitions[number]
}

// Changed tells the supervisor that the log has an event of type how about a
// connection. If this process owns the partition, the connection's worker reads the
// connection again and starts, stops or restarts its session. Changed does not block.
func (s *Supervisor) Changed(partition int, c domain.ConnectionRef, how domain.EventType) {
	s.wake(partition, c, causeOf(how))
}

// wake makes the connection's worker look at its connection. It starts the worker if
// there is none.
func (s *Supervisor) wake(number int, c domain.ConnectionRef, why cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.partitions[number]
	if p == nil || p.ctx == nil || p.ctx.Err() != nil {
		return
	}
	w := s.workers[c.System][c.ID]
	if w == nil {
		w = newWorker(s, c)
		if s.workers[c.System] == nil {
			s.workers[c.System] = map[domain.ConnectionID]*worker{}
		}
		s.workers[c.System][c.ID] = w
		ctx := p.ctx
		p.workers.Go(func() {
			defer s.forget(w, true) // also if the partition is lost after a panic
			isolate.Loop(ctx, w.logger, where, func() { w.run(ctx) })
		})
	}
	w.woken |= why
	signal(w.wake)
}

// forget removes a worker that is about to end, unless another has its place. Unless
// forced, it keeps a worker that was woken in the meantime, and returns false.
func (s *Supervisor) forget(w *worker, forced bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !forced && len(w.wake) > 0 {
		return false
	}
	if s.workers[w.conn.System][w.conn.ID] != w {
		return true
	}
	delete(s.workers[w.conn.System], w.conn.ID)
	if len(s.workers[w.conn.System]) == 0 {
		delete(s.workers, w.conn.System)
	}
	return true
}

// Drop closes the connection's socket, whenever it was opened, and returns the number of closed sockets: 0 or
// 1. The worker reads the connection again before it opens another socket.
func (s *Supervisor) Drop(c domain.ConnectionRef, _ time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.workers[c.System][c.ID]
	if w == nil || w.session == nil || !w.session.open.Load() {
		return 0
	}
	w.cancel()
	return 1
}

// Switch implements [shelly.Holder]. If the device has left one of the system's
// accounts and is on no other here, Switch accepts the command and reports a failure.
func (s *Supervisor) Switch(c shelly.SwitchCommand, report func(shelly.SwitchResult)) bool {
	holder := s.holder(c.DeviceRef)
	if holder == nil {
		return false
	}
	holder.request(request{c, report})
	return true
}

// Holds implements [shelly.Holder].
func (s *Supervisor) Holds(d domain.DeviceRef) bool { return s.holder(d) != nil }

// holder returns the session that takes a device's commands, or nil: preferably one
// with the device on its account.
func (s *Supervisor) holder(d domain.DeviceRef) (best *session) {
	base, found := baseOf(d.Device), unknownDevice
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers[d.System] {
		if w.session == nil {
			continue
		}
		switch m := w.session.membershipOf(base); {
		case m == onAccount:
			return w.session
		case m != unknownDevice && found == unknownDevice:
			best, found = w.session, m
		}
	}
	return best
}

// Correct implements [shelly.Holder].
func (s *Supervisor) Correct(base domain.DeviceRef, rows []*domain.Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers[base.System] {
		if w.session != nil && w.session.membershipOf(base.Device) != unknownDevice {
			select {
			case w.session.corrected <- correction{base.Device, rows}:
			default:
			}
		}
	}
}

// Stats returns the number of sessions by the state of their connection. Stopped
// connections have no session.
func (s *Supervisor) Stats() map[domain.ConnectionState]int {
	counts := map[domain.ConnectionState]int{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, workers := range s.workers {
		for _, w := range workers {
			if w.session != nil {
				counts[w.session.connectionState()]++
			}
		}
	}
	return counts
}
