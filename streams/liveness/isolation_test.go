package liveness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// troubled is a Devices that fails, hangs or panics for all systems but one.
type troubled struct {
	*bundle
	trouble func(ctx context.Context) error
}

func (d troubled) DevicesAt(
	ctx context.Context, of domain.SystemID, ids []domain.DeviceID, at domain.Position,
) (map[domain.DeviceID]*domain.Device, error) {
	if of != system {
		return nil, d.trouble(ctx)
	}
	return d.bundle.DevicesAt(ctx, of, ids, at)
}

// neighbours returns systems in the same partition as the test's system.
func (b *bundle) neighbours(n int) (found []domain.SystemID) {
	for i := 0; len(found) < n; i++ {
		if id := domain.SystemID(fmt.Sprint("neighbour-", i)); b.log.Partition(id) == b.log.Partition(system) {
			found = append(found, id)
		}
	}
	return found
}

func (b *bundle) pendingCount(registry *Registry) int64 {
	n, err := b.log.Client().ZCard(b.t.Context(), registry.keys(b.log.Partition(system))[3]).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// Systems with very many silent devices whose state cannot be read do not keep the silence of
// another system's only device from being reported.
func TestTroubleOfOneSystemStaysThere(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(context.Context) error{
		"an error": func(context.Context) error { return errors.New("the database is away") },
		"a panic":  func(context.Context) error { panic("no") },
		"a hang":   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			registry := b.registry("a", nil)
			const devices = 5000
			bad := b.neighbours(20)
			for _, other := range bad[1:] {
				registry.Open(domain.DeviceRef{System: other, Device: "plug-1"}, "s", 0)
			}
			flapping := func() {
				for n := range devices {
					registry.Open(domain.DeviceRef{System: bad[0], Device: plug(n).Device}, "s", 0)
				}
			}
			flapping()
			b.run(func(ctx context.Context) {
				registry.Watch(ctx, b.log.Partition(system), troubled{b, trouble})
			})
			pending := int64(devices + len(bad) - 1)
			b.eventually("all of the bad systems to be found silent", func() bool { return b.pendingCount(registry) == pending })
			b.publish("plug-1", true, true)
			registry.Open(plug(1), "s", 0)
			b.expect("plug-1 online=false heartbeat-missed relay=true")

			flapping() // they are heard and silent again, while the first silences still wait
			b.eventually("their returns to be written", func() bool { return b.waiting(registry) == 0 })
			registry.Open(plug(1), "t", time.Hour)
			b.eventually("the return", func() bool { return len(b.notices()) == 2 })
			registry.Close(plug(1), "t", 0, domain.ReasonSocketClosed)
			b.expect("plug-1 online=false heartbeat-missed relay=true", "plug-1 online=true back relay=true",
				"plug-1 online=false socket-closed relay=true")
		})
	}
}

// waiting returns how many devices have changes that are not written yet.
func (b *bundle) waiting(registry *Registry) (n int) {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	for _, changes := range registry.changes {
		n += len(changes)
	}
	return n
}

// block makes Redis refuse the event of a silence, because its idempotency key exists with
// another type. The test learns the key's name from another deployment that appends the event.
func (b *bundle) block(s silence, online bool) {
	b.t.Helper()
	other := newBundle(b.t)
	event, err := domain.NewEvent(s.device.System, domain.DeviceOfflineStatus{DeviceID: s.device.Device, Online: online}, domain.Cause{})
	if err == nil {
		err = other.registry("other", nil).append(b.t.Context(), &s, event, online)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	names, err := other.log.Client().Keys(b.t.Context(), "*}:idem:*").Result()
	if err != nil || len(names) != 1 {
		b.t.Fatalf("found %q, %v", names, err)
	}
	if err := b.log.Client().LPush(b.t.Context(), names[0], "x").Err(); err != nil {
		b.t.Fatal(err)
	}
}

// A device whose event cannot be written, and devices whose silence cannot be decoded, delay no
// other device of their system.
func TestTroubleOfOneDeviceStaysThere(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	registry := b.registry("a", nil)
	const devices = 200
	partition := b.log.Partition(system)
	for n := range devices {
		b.publish(plug(n).Device, true, true)
		registry.Open(plug(n), "s", 0)
	}
	var pending []silence
	b.eventually("all to be found silent", func() bool {
		pending = b.pending(registry)
		return len(pending) == devices
	})
	client, keys := b.log.Client(), registry.keys(partition)
	b.block(pending[0], false)
	unreadable := []string{"", "{", `"text"`, `{"since":"x"}`}
	for i, text := range unreadable {
		member := memberOf(plug(devices + i))
		b.publish(plug(devices+i).Device, true, true)
		if err := errors.Join(client.HSet(t.Context(), keys[2], member, text).Err(),
			client.ZAdd(t.Context(), keys[3], redis.Z{Member: member}).Err()); err != nil {
			t.Fatal(err)
		}
	}
	b.watch(registry)
	b.eventually("all but one to be reported", func() bool { return len(b.notices()) == devices-1+len(unreadable) })
	b.eventually("one to be left", func() bool { return b.pendingCount(registry) == 1 })
	for _, n := range b.notices() {
		if strings.HasPrefix(n, string(pending[0].device.Device)+" ") {
			t.Errorf("written although it is blocked: %s", n)
		}
	}
}

// pending sweeps, and returns the silences of the test's system about which there is something
// to write.
func (b *bundle) pending(registry *Registry) []silence {
	b.t.Helper()
	partition := b.log.Partition(system)
	if _, err := registry.sweep(b.t.Context(), partition); err != nil {
		b.t.Fatal(err)
	}
	pending, _, _, err := registry.pending(b.t.Context(), partition, system, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return pending
}
