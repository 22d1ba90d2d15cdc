package simulator

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// FleetConfig says what a fleet is. The zero value of a field is its default.
type FleetConfig struct {
	Devices    int
	Seed       uint64        // the same seed and connection have the same plugs
	Connection string        // mixed into the ids, so that no two connections have a plug in common
	Rate       float64       // changes per plug and minute; 0 is none
	Ramp       time.Duration // over which the plugs dial the first time; default all at once
	Beat       time.Duration // as in PlugConfig, like those that follow
	RetryMin   time.Duration
	RetryMax   time.Duration
	Logger     *slog.Logger
}

// Fleet is many plugs that dial one URL. It is safe for concurrent use.
type Fleet struct {
	ramp  time.Duration
	plugs []*Plug
}

// NewFleet makes the plugs. They do nothing before [Fleet.Run].
func NewFleet(cfg FleetConfig) *Fleet {
	f := &Fleet{ramp: cfg.Ramp, plugs: make([]*Plug, max(cfg.Devices, 0))}
	for n := range f.plugs {
		f.plugs[n] = NewPlug(PlugConfig{
			ID:               fleetID(cfg.Seed, cfg.Connection, n),
			Seed:             cfg.Seed,
			ChangesPerMinute: cfg.Rate,
			Beat:             cfg.Beat,
			RetryMin:         cfg.RetryMin,
			RetryMax:         cfg.RetryMax,
			Logger:           cfg.Logger,
		})
	}
	return f
}

// fleetID is the id of the n-th plug.
func fleetID(seed uint64, connection string, n int) domain.DeviceID {
	hash := fnv.New128a()
	var number [16]byte
	binary.BigEndian.PutUint64(number[:8], seed)
	binary.BigEndian.PutUint64(number[8:], uint64(n))
	_, _ = hash.Write(append(number[:], connection...))
	sum := hash.Sum(nil)
	return domain.DeviceID("shellyplugsg3-" + plugHex(binary.BigEndian.Uint64(sum)^binary.BigEndian.Uint64(sum[8:])))
}

// Run runs all plugs until ctx ends, and returns ctx.Err() when all have ended;
// or at once an error for a url that is none.
func (f *Fleet) Run(ctx context.Context, url string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var plugs sync.WaitGroup
	defer plugs.Wait()
	pause := f.ramp / time.Duration(max(len(f.plugs), 1))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for _, p := range f.plugs {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			timer.Reset(pause)
		}
		plugs.Go(func() {
			if err := p.Run(ctx, url); err != nil && ctx.Err() == nil {
				cancel(err) // the same for all of them
			}
		})
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// Plugs are the plugs, always in the same order.
func (f *Fleet) Plugs() []*Plug { return f.plugs }

// Connected is how many plugs are connected.
func (f *Fleet) Connected() (n int) {
	for _, p := range f.plugs {
		if p.Connected() {
			n++
		}
	}
	return n
}

// Sent is how many frames all plugs sent.
func (f *Fleet) Sent() (n uint64) {
	for _, p := range f.plugs {
		n += p.Sent()
	}
	return n
}

// Dials is how often all plugs dialled.
func (f *Fleet) Dials() (n int) {
	for _, p := range f.plugs {
		n += p.Dials()
	}
	return n
}

// Refused is how many plugs are not connected and were refused with the code
// when they last were.
func (f *Fleet) Refused(code int) (n int) {
	for _, p := range f.plugs {
		if !p.Connected() && p.Refused() == code {
			n++
		}
	}
	return n
}

// Problem is why a plug's last dial got no answer: the first such plug's; nil when
// there is none.
func (f *Fleet) Problem() error {
	for _, p := range f.plugs {
		if err := p.Problem(); err != nil {
			return err
		}
	}
	return nil
}

// LastRefusal is the HTTP status or close code with which a plug was refused that
// is not connected: the first such plug's; 0 when there is none.
func (f *Fleet) LastRefusal() int {
	for _, p := range f.plugs {
		if code := p.Refused(); code != 0 && !p.Connected() {
			return code
		}
	}
	return 0
}
