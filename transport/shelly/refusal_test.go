package shelly

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// The memory of refusals is bounded.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	r := NewRefusals(slog.New(slog.DiscardHandler))
	for i := range mostRemembered + 10 {
		c := domain.ConnectionRef{System: "s", ID: domain.ConnectionID(fmt.Sprint("c", i))}
		r.Keep(c, domain.DeviceRefusal{Reason: "flood"})
	}
	c := domain.ConnectionRef{System: "s", ID: "c"}
	for range 30 {
		r.Keep(c, domain.DeviceRefusal{Reason: "flood"})
	}
	if len(r.last) > mostRemembered || len(r.warned) > mostRemembered || len(r.LastRefusals(c.System, c.ID)) != RefusalsKept {
		t.Errorf("%d connections, %d warnings, %d of one", len(r.last), len(r.warned), len(r.LastRefusals(c.System, c.ID)))
	}
}
