package shelly

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// fakeLog is a log that fails with the given errors, one after the other, and then works,
// or fails with stuck for ever if that is set.
type fakeLog struct {
	fails    []error
	stuck    error
	tries    int
	appended []domain.Event
}

func (l *fakeLog) Append(_ context.Context, events []domain.Event, opts domain.AppendOptions) (domain.Appended, error) {
	l.tries++
	if opts != (domain.AppendOptions{}) {
		return domain.Appended{}, errors.New("an update has no condition")
	}
	if l.tries <= len(l.fails) {
		return domain.Appended{}, l.fails[l.tries-1]
	}
	if l.stuck != nil {
		return domain.Appended{}, l.stuck
	}
	l.appended = append(l.appended, events...)
	return domain.Appended{Positions: make([]domain.Position, len(events))}, nil
}

var (
	unavailable = domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "try again")
	unknown     = domain.Fail(domain.KindUnknownOutcome, domain.CodeUnknownOutcome, "who knows")
	updates     = []Update{
		{DeviceUpdate: domain.DeviceUpdate{DeviceID: plug, RelayOn: domain.Some(true)}, CausationID: "cmd", CorrelationID: "request"},
		{DeviceUpdate: domain.DeviceUpdate{DeviceID: plug + ":1"}},
	}
)

func TestPublishTriesUntilItIsSafe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		for range 20 {
			l.fails = append(l.fails, unavailable, unknown)
		}
		if err := Publish(t.Context(), l, cred, updates); err != nil {
			t.Fatal(err)
		}
		if len(l.appended) != 2 {
			t.Fatalf("%d events", len(l.appended))
		}
		first, second := l.appended[0], l.appended[1]
		if first.Type != domain.TypeDeviceUpdate || first.SystemID != cred.System || first.Actor != "shelly:outbound-1" ||
			first.CausationID != "cmd" || first.CorrelationID != "request" || second.CausationID != "" {
			t.Fatalf("%+v", l.appended)
		}
		if id := second.Device(); id != plug+":1" {
			t.Fatalf("the second is of %s", id)
		}
	})
}

func TestPublishGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l := &fakeLog{stuck: unavailable}
		err := Publish(ctx, l, cred, updates)
		if !errors.Is(err, context.DeadlineExceeded) || !domain.HasCode(err, domain.CodeUnavailable) {
			t.Fatal(err)
		}
		// Between 120 tries at the most pause, half a second, and 240 at half of it, and the quick ones.
		if l.tries < 120 || l.tries > 250 {
			t.Fatalf("%d tries in a minute", l.tries)
		}
	})
}

func TestPublishReturnsWhatTryingDoesNotMend(t *testing.T) {
	t.Parallel()
	for _, fault := range []error{errors.New("a bug"), domain.Fail(domain.KindTooLarge, domain.CodeBatchTooLarge, "")} {
		l := &fakeLog{stuck: fault}
		if err := Publish(t.Context(), l, cred, updates); !errors.Is(err, fault) || l.tries != 1 {
			t.Fatalf("%v after %d tries", err, l.tries)
		}
	}
	if err := Publish(t.Context(), nil, cred, nil); err != nil {
		t.Fatal(err)
	}
}
