package cloud

import (
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// While the log is slow, updates and states keep their order, a state replaces one that
// waits directly before it, and the outbox reports that it is full.
func TestOutboxWhileTheLogIsSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newMemoryLog()
		release := log.hold()
		o := newOutbox(log, domain.ConnectionRef{System: sol, ID: "acc1"}, domain.StateConnected, slog.New(slog.DiscardHandler))
		go o.run(t.Context())
		update := func(id domain.DeviceID) []shelly.Update {
			u := domain.DeviceUpdate{DeviceID: id, RelayOn: domain.Some(true), Changed: []string{"relayOn"}}
			return []shelly.Update{{DeviceUpdate: u}}
		}
		state := func(s domain.ConnectionState) *domain.ConnectionStateChanged {
			return &domain.ConnectionStateChanged{ConnectionID: "acc1", State: s}
		}
		o.push(update("first"), nil)
		synctest.Wait() // the first update is being appended
		o.push(nil, state(domain.StateDisconnected))
		o.push(nil, state(domain.StateRefused))
		o.push(update("second"), nil)
		o.push(update("third"), state(domain.StateDisconnected))
		o.push(nil, state(domain.StateConnected))
		if o.full() {
			t.Error("two updates fill the outbox")
		}
		for range maxWaiting {
			o.push(update("fourth"), nil)
		}
		if !o.full() {
			t.Error("the outbox is not full")
		}
		release()
		synctest.Wait()
		if o.full() {
			t.Error("the outbox is full although the log has everything")
		}
		var got []string
		for _, e := range log.all() {
			data, err := e.Decode()
			if err != nil {
				t.Fatal(err)
			}
			switch d := data.(type) {
			case domain.DeviceUpdate:
				got = append(got, string(d.DeviceID))
			case domain.ConnectionStateChanged:
				got = append(got, string(d.State))
			}
		}
		want := append([]string{"first", "refused", "second", "third", "connected"}, slices.Repeat([]string{"fourth"}, maxWaiting)...)
		if !slices.Equal(got, want) {
			t.Errorf("the log has %v", got)
		}
	})
}
