package projections_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

func TestBind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	revision := b.keep(t, "sol-1", "acc1", "h")
	b.keep(t, "sol-1", "acc2", "h")
	b.keep(t, "luna-2", "acc3", "h")
	for range 2 { // again is nothing new
		if err := b.store.Bind(ctx, "plug", "sol-1", "acc1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.store.Bind(ctx, "plug", "luna-2", "acc3"); !domain.HasCode(err, domain.CodeForeignDevice) ||
		domain.AsError(err).Kind != domain.KindForbidden || strings.Contains(err.Error(), "sol") {
		t.Errorf("a neighbour's device: %v", err)
	}
	for _, id := range []domain.ConnectionID{"acc3", "nope"} { // of another system, and of none
		if err := b.store.Bind(ctx, "another", "sol-1", id); !domain.HasCode(err, domain.CodeUnknownConnection) {
			t.Errorf("through %s: %v", id, err)
		}
	}
	if err := b.store.Bind(ctx, "other", "sol-1", "acc1"); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Bind(ctx, "plug", "sol-1", "acc2"); err != nil { // moved
		t.Fatal(err)
	}
	// With acc1 goes what came in through it, and no more.
	if err := b.store.DeleteSecret(ctx, "acc1", revision); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Bind(ctx, "other", "luna-2", "acc3"); err != nil {
		t.Errorf("its connection is gone: %v", err)
	}
	if err := b.store.Bind(ctx, "plug", "luna-2", "acc3"); !domain.HasCode(err, domain.CodeForeignDevice) {
		t.Errorf("its connection is there: %v", err)
	}
}

// Two systems claim a device at once: one has it.
func TestBindAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.keep(t, "sol-1", "acc1", "h")
	b.keep(t, "luna-2", "acc2", "h")
	for _, device := range []domain.DeviceID{"a", "b", "c", "d"} {
		var claims sync.WaitGroup
		var sol, luna error
		claims.Go(func() { sol = b.store.Bind(t.Context(), device, "sol-1", "acc1") })
		claims.Go(func() { luna = b.store.Bind(t.Context(), device, "luna-2", "acc2") })
		claims.Wait()
		lost := sol
		if sol == nil {
			lost = luna
		}
		if sol != nil && luna != nil || !domain.HasCode(lost, domain.CodeForeignDevice) {
			t.Errorf("%s: %v and %v", device, sol, luna)
		}
	}
}
