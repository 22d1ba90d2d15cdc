package heartbeats

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

func (d troubled) DevicesAt(ctx context.Context, of domain.SystemID, ids []domain.DeviceID, at domain.Position) (map[domain.DeviceID]*domain.Device, error) {
	if of != system {
		return nil, d.trouble(ctx)
	}
	return d.bundle.DevicesAt(ctx, of, ids, at)
}

// neighbours are systems in the same partition as the tests' system.
func (b *bundle) neighbours(n int) (found []domain.SystemID) {
	for i := 0; len(found) < n; i++ {
		if id := domain.SystemID(fmt.Sprint("neighbour-", i)); b.log.Partition(id) == b.log.Partition(system) {
			found = append(found, id)
		}
	}
	return found
}

func (b *bundle) pendingCount(board *Board) int64 {
	n, err := b.log.Client().ZCard(b.t.Context(), board.keys(b.log.Partition(system))[3]).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// Systems with very many silent devices, for which nothing can be looked up, do not
// keep the silence of another system's only device from being told.
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
			board := b.board("a", nil)
			const devices = 5000
			bad := b.neighbours(20)
			for _, other := range bad[1:] {
				board.Open(Device{other, "plug-1"}, "s", 0)
			}
			flapping := func() {
				for n := range devices {
					board.Open(Device{bad[0], plug(n).Device}, "s", 0)
				}
			}
			flapping()
			b.run(func(ctx context.Context) {
				board.Watch(ctx, b.log.Partition(system), troubled{b, trouble})
			})
			pending := int64(devices + len(bad) - 1)
			b.eventually("all of the bad systems to be found silent", func() bool { return b.pendingCount(board) == pending })
			b.publish("plug-1", true, true)
			board.Open(plug(1), "s", 0)
			b.expect("plug-1 online=false heartbeat-missed relay=true")

			flapping() // they are heard again and silent again, while the first silences still wait
			b.eventually("their returns to be written to the board", func() bool { return b.waiting(board) == 0 })
			board.Open(plug(1), "t", time.Hour)
			b.eventually("the return", func() bool { return len(b.notices()) == 2 })
			board.Close(plug(1), "t", 0, domain.ReasonSocketClosed)
			b.expect("plug-1 online=false heartbeat-missed relay=true", "plug-1 online=true back relay=true",
				"plug-1 online=false socket-closed relay=true")
		})
	}
}

// waiting is how many devices have changes that are not on the board yet.
func (b *bundle) waiting(board *Board) (n int) {
	board.mu.Lock()
	defer board.mu.Unlock()
	for _, changes := range board.changes {
		n += len(changes)
	}
	return n
}

// block makes Redis refuse the event of a silence: the key that keeps it from being
// written twice is of another type. Its name is found where it is written.
func (b *bundle) block(s silence, online bool) {
	b.t.Helper()
	other := newBundle(b.t)
	event, err := domain.NewEvent(s.device.System, domain.DeviceOfflineStatus{DeviceID: s.device.Device, Online: online}, domain.Cause{})
	if err == nil {
		err = other.board("other", nil).append(b.t.Context(), &s, event, online)
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

// A device whose event cannot be written, and one of which the board has nothing
// that can be read, delay no other device of their system.
func TestTroubleOfOneDeviceStaysThere(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	board := b.board("a", nil)
	const devices = 200
	partition := b.log.Partition(system)
	for n := range devices {
		b.publish(plug(n).Device, true, true)
		board.Open(plug(n), "s", 0)
	}
	var pending []silence
	b.eventually("all to be found silent", func() bool {
		pending = b.pending(board)
		return len(pending) == devices
	})
	client, keys := b.log.Client(), board.keys(partition)
	b.block(pending[0], false)
	unreadable := []string{"", "{", `"text"`, `{"since":"x"}`}
	for i, text := range unreadable {
		member := plug(devices + i).member()
		b.publish(plug(devices+i).Device, true, true)
		if err := errors.Join(client.HSet(t.Context(), keys[2], member, text).Err(),
			client.ZAdd(t.Context(), keys[3], redis.Z{Member: member}).Err()); err != nil {
			t.Fatal(err)
		}
	}
	b.watch(board)
	b.eventually("all but one to be told of", func() bool { return len(b.notices()) == devices-1+len(unreadable) })
	b.eventually("one to be left", func() bool { return b.pendingCount(board) == 1 })
	for _, n := range b.notices() {
		if strings.HasPrefix(n, string(pending[0].device.Device)+" ") {
			t.Errorf("written in spite of all: %s", n)
		}
	}
}

// pending finds what is silent and returns what there is to write about the tests'
// system.
func (b *bundle) pending(board *Board) []silence {
	b.t.Helper()
	partition := b.log.Partition(system)
	if _, err := board.sweep(b.t.Context(), partition); err != nil {
		b.t.Fatal(err)
	}
	pending, _, _, err := board.pending(b.t.Context(), partition, system, "")
	if err != nil {
		b.t.Fatal(err)
	}
	return pending
}
