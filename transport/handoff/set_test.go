package handoff

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain/isolate"
)

// A shutdown ends the listed items, and cuts off those that have not left in time.
func TestSetShutsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var set Set[string]
		for _, one := range []string{"quick", "slow", "gone"} {
			set.Enter()
			if closing := set.Add(one); closing {
				t.Errorf("%s is told that the set closes", one)
			}
		}
		leave := func(one string) {
			set.Remove(one)
			set.Leave()
		}
		leave("gone")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var ended, cut []string
		err := set.Shutdown(ctx, func(one string) {
			if ended = append(ended, one); one == "quick" {
				leave(one)
			}
		}, func(one string) {
			cut = append(cut, one)
			leave(one)
		})
		slices.Sort(ended)
		if !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(ended, []string{"quick", "slow"}) || !slices.Equal(cut, []string{"slow"}) {
			t.Errorf("%v: ended are %v, cut off %v", err, ended, cut)
		}
		if set.Len() != 0 || !set.Add("late") {
			t.Error("a set that is closed takes more without a word")
		}
	})
}

// The clock ticks the items that are due. A panic affects only its own item.
func TestClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const where = "handoff test"
		before := isolate.Panics()[where]
		looked, broken := map[string]int{}, map[string]int{}
		clock := Clock[string]{
			Every: time.Second, Where: where, Logger: slog.New(slog.DiscardHandler),
			Due: func(time.Time) []string { return []string{"bad", "good"} },
			Tick: func(one string, _ time.Time) {
				if one == "bad" {
					panic("on purpose")
				}
				looked[one]++
			},
			Panicked: func(one string) { broken[one]++ },
		}
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second+time.Millisecond)
		defer stop()
		if err := clock.Run(ctx); err != nil {
			t.Error(err)
		}
		if looked["good"] != 2 || broken["bad"] != 2 || len(looked)+len(broken) != 2 || isolate.Panics()[where]-before != 2 {
			t.Errorf("looked at %v, broken are %v", looked, broken)
		}
	})
}
