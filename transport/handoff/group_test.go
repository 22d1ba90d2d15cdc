package handoff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestDrainWaitsForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var open Group
		if !open.Enter() || open.Closing() {
			t.Fatal("closed from the beginning")
		}
		open.Close()
		if open.Enter() || !open.Closing() {
			t.Error("entered what is closed")
		}
		hold := make(chan struct{})
		open.Go(func() { <-hold }) // who is in may have more
		open.AddMember()
		drained := make(chan error, 1)
		go func() { drained <- open.Drain(t.Context(), func() { t.Error("cut off") }) }()
		for _, leave := range []func(){open.Leave, open.Leave, func() { close(hold) }} {
			synctest.Wait()
			select {
			case <-drained:
				t.Fatal("did not wait")
			default:
			}
			leave()
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}
		if err := open.Drain(t.Context(), nil); err != nil {
			t.Errorf("for the second time: %v", err)
		}
	})
}

func TestDrainCutsOffWhoStays(t *testing.T) {
	t.Parallel()
	var open Group
	open.Enter()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := open.Drain(ctx, open.Leave); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
