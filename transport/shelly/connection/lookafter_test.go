package connection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// A connection that cannot be looked after does not keep later ones from their turn.
func TestEachConnectionIsLookedAfterApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var connections []domain.ConnectionRef
		for _, id := range []domain.ConnectionID{"fails", "hangs", "panics", "good"} {
			connections = append(connections, domain.ConnectionRef{System: "clinica-sol", ID: id})
		}
		var seen []domain.ConnectionID
		eachApart(t.Context(), slog.New(slog.DiscardHandler), connections, func(ctx context.Context, c domain.ConnectionRef) error {
			seen = append(seen, c.ID)
			switch c.ID {
			case "fails":
				return errors.New("cannot be read")
			case "hangs":
				<-ctx.Done()
				return ctx.Err()
			case "panics":
				panic("a bad connection")
			}
			return nil
		})
		if fmt.Sprint(seen) != "[fails hangs panics good]" {
			t.Errorf("looked after %v", seen)
		}
	})
}

// A system whose connections all hang does not delay another system's.
func TestSystemsAreLookedAfterApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var connections []domain.ConnectionRef
		for i := range 100 {
			connections = append(connections, domain.ConnectionRef{System: "stuck", ID: domain.ConnectionID(fmt.Sprint(i))})
		}
		connections = append(connections, domain.ConnectionRef{System: "clinica-sol", ID: "good"})
		begin := time.Now()
		waited := make(chan time.Duration, 1)
		eachApart(t.Context(), slog.New(slog.DiscardHandler), connections, func(ctx context.Context, c domain.ConnectionRef) error {
			if c.System == "stuck" {
				<-ctx.Done()
				return ctx.Err()
			}
			waited <- time.Since(begin)
			return nil
		})
		if wait := <-waited; wait != 0 {
			t.Errorf("the other system waited for %v", wait)
		}
	})
}
