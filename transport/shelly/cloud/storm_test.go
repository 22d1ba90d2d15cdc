package cloud

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/testpeer/shellycloud"
)

// After lost events, broken sockets, outages, expired tokens, restarts and takeovers, the
// platform has the state of the plugs in the end.
func TestStorm(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			storm(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func storm(t *testing.T, random *rand.Rand) {
	cfg := quick()
	cfg.SilentAfter = 100 * time.Millisecond
	b := newBench(t, cfg, shellycloud.Config{TokenLife: 300 * time.Millisecond})
	a, _ := b.account(sol, "acc1")
	var devices []*shellycloud.Device
	for i := range 6 {
		id := fmt.Sprintf("b0b21c12dd%02d", i)
		if i%3 == 0 {
			id = fmt.Sprintf("b923f%d", i)
		}
		d := a.AddDevice(id, 1+i%2)
		d.SetPartial(i%2 == 0)
		devices = append(devices, d)
	}
	stop := b.run(b.supervisor)
	b.connected(sol, "acc1")
	acc1 := domain.ConnectionRef{System: sol, ID: "acc1"}
	revive := func() { // a renewed token that ends at once is a reason to refuse the credential
		if b.supervisor.Stats()[domain.StateRefused] > 0 {
			b.supervisor.Changed(0, acc1, domain.TypeConnectionStarted)
		}
	}
	for range 300 {
		d := devices[random.IntN(len(devices))]
		switch random.IntN(30) {
		case 0:
			a.BreakSockets()
		case 1:
			a.CloseSockets(1001, "maintenance")
		case 2:
			a.ExpireTokens()
		case 3:
			b.supervisor.Changed(0, acc1, domain.TypeConnectionRestarted)
		case 4:
			b.supervisor.Drop(domain.ConnectionRef{System: sol, ID: "acc1"}, time.Now())
		case 5:
			a.Mute(true)
			d.Press(0, random.IntN(2) == 0)
			a.Mute(false)
			a.BreakSockets()
		case 6:
			d.SetOnline(random.IntN(2) == 0)
		case 7:
			stop()
			b.supervisor = b.another(cfg)
			stop = b.run(b.supervisor)
		case 8:
			b.cloud.Outage(true)
			b.cloud.Outage(false)
		case 9:
			c := shelly.SwitchCommand{DeviceRef: domain.DeviceRef{System: sol, Device: domain.DeviceID(d.ID)}, CommandID: "cmd", On: true}
			b.supervisor.Switch(c, func(shelly.SwitchResult) {})
		case 10, 11:
			d.Draw(0, float64(random.IntN(100)))
		case 12:
			states := a.Counts().AllStatus
			b.eventually("the states are fetched", func() bool {
				revive()
				return a.Counts().AllStatus > states
			})
		default:
			d.Press(0, random.IntN(2) == 0)
		}
	}
	for _, d := range devices {
		b.eventually("the log has what "+d.ID+" does", func() bool {
			revive()
			got := b.log.device(sol, domain.DeviceID(d.ID))
			return got != nil && got.RelayOn != nil && *got.RelayOn == d.On(0)
		})
	}
	if n := a.Counts().Most; n != 1 {
		t.Errorf("%d sockets at once", n)
	}
}
