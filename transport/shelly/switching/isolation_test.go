package switching

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// A system for which it cannot be said who holds its devices does not keep the
// referee from another system's commands.
func TestOneSystemHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBundle(t)
		answers := b.desk.parts.Elsewhere
		b.desk.parts.Elsewhere = func(ctx context.Context, d shelly.DeviceRef) (bool, error) {
			if d.System != system {
				<-ctx.Done()
				return false, ctx.Err()
			}
			return answers(ctx, d)
		}
		defer b.referee()()
		for _, hanging := range []domain.SystemID{"hangs-1", "hangs-2", "hangs-3"} {
			e, err := domain.NewEvent(hanging, domain.RelaySwitchRequested{CommandID: "of-" + string(hanging), DeviceID: plug, On: true}, domain.Cause{})
			if err != nil {
				t.Fatal(err)
			}
			e.Position = domain.Position{Ms: uint64(time.Now().UnixMilli())}
			if err := b.desk.Requested(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, b.run(expiry+2*lookAround), domain.OutcomeFailed)
	})
}
