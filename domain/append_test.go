package domain

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// failingLog fails with the given errors, one per append, and accepts events after that.
type failingLog struct {
	fails []error
	keys  []string
}

func (l *failingLog) Append(_ context.Context, events []Event, opts AppendOptions) (Appended, error) {
	l.keys = append(l.keys, opts.Idempotency.Key)
	if len(l.fails) > 0 {
		err := l.fails[0]
		l.fails = l.fails[1:]
		return Appended{}, err
	}
	return Appended{Positions: make([]Position, len(events))}, nil
}

func TestAppendUntilDone(t *testing.T) {
	t.Parallel()
	unavailable := Fail(KindUnavailable, CodeUnavailable, "away")
	unknown := Fail(KindUnknownOutcome, CodeUnknownOutcome, "no answer")
	limited := Fail(KindLimited, CodeTooManyKeys, "no more")
	bug := errors.New("a bug")
	for name, c := range map[string]struct {
		fails  []error
		want   []error // the errors that it wraps; none if the events are appended
		tries  int
		warned error // the first error after which it retries
	}{
		"at once":              {tries: 1},
		"after an outage":      {fails: []error{unavailable, unknown, unavailable}, tries: 4, warned: unavailable},
		"unknown, and refused": {fails: []error{unknown, limited}, want: []error{limited}, tries: 2, warned: unknown},
		"a bug":                {fails: []error{bug}, want: []error{bug}, tries: 1},
		"a conflict":           {fails: []error{&ConflictError{}}, want: []error{&ConflictError{}}, tries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &failingLog{fails: c.fails}
				var warned []error
				appended, err := AppendUntilDone(t.Context(), l, make([]Event, 2), AppendOptions{Idempotency: &Idempotency{Key: "k"}},
					func(err error) { warned = append(warned, err) })
				if (err == nil) != (c.want == nil) || err == nil && len(appended.Positions) != 2 {
					t.Errorf("%v, %v", appended, err)
				}
				for _, want := range c.want {
					if conflict := new(ConflictError); !errors.Is(err, want) && !(errors.As(want, &conflict) && errors.As(err, &conflict)) {
						t.Errorf("%v is not %v", err, want)
					}
				}
				if len(l.keys) != c.tries || (c.warned == nil) != (len(warned) == 0) || c.warned != nil && (len(warned) != 1 || warned[0] != c.warned) {
					t.Errorf("%d tries, warned of %v", len(l.keys), warned)
				}
				for _, key := range l.keys {
					if key != "k" {
						t.Errorf("a try has the key %q", key)
					}
				}
			})
		})
	}
}

// If the context ends, the error says why, and contains the result of the last try.
func TestAppendUntilDoneEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &failingLog{}
		for range 1000 {
			l.fails = append(l.fails, Fail(KindUnknownOutcome, CodeUnknownOutcome, "no answer"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		_, err := AppendUntilDone(ctx, l, make([]Event, 1), AppendOptions{Idempotency: &Idempotency{}}, nil)
		if !errors.Is(err, context.DeadlineExceeded) || !HasCode(err, CodeUnknownOutcome) || time.Since(began) != time.Minute {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if len(l.keys) < 120 || len(l.keys) > 250 {
			t.Errorf("%d tries in a minute", len(l.keys))
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		l = &failingLog{fails: []error{Fail(KindUnavailable, CodeUnavailable, "away")}}
		if _, err := AppendUntilDone(ended, l, make([]Event, 1), AppendOptions{Idempotency: &Idempotency{}}, func(err error) {
			t.Errorf("told that it is repeated: %v", err)
		}); !errors.Is(err, context.Canceled) || len(l.keys) != 1 {
			t.Errorf("%d tries: %v", len(l.keys), err)
		}
	})
}
