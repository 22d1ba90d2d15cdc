package socketio

import (
	"fmt"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// BenchmarkRest measures the extra cost of a delivery to a client in several rooms.
func BenchmarkRest(b *testing.B) {
	for _, rooms := range []int{1, 16} {
		b.Run(fmt.Sprint(rooms, "-rooms"), func(b *testing.B) {
			s := &socket{saved: Session{Revision: 20}}
			for i := range rooms {
				at := domain.Position{Ms: 1_795_461_046_705 + uint64(i)}
				s.rooms = append(s.rooms, &membership{socket: s, system: domain.SystemID(fmt.Sprint("clinic-", i)), sent: at})
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = s.offsetSuffix(s.rooms[0])
			}
		})
	}
}

// BenchmarkDelivery measures an event from its source until 50 clients of one room have
// read it.
func BenchmarkDelivery(b *testing.B) {
	bundle := setup(b, Config{})
	clients := make([]*testClient, 50)
	for i := range clients {
		clients[i] = bundle.client("eva:clinica-sol").connect()
		clients[i].join("clinica-sol")
	}
	b.ReportAllocs()
	for b.Loop() {
		bundle.append(sol, 1)
		for _, c := range clients {
			if f, err := c.ws.Next(b.Context()); err != nil || !strings.HasPrefix(f.Data, `42["device-update"`) {
				b.Fatalf("got %s, %v", f.Data, err)
			}
		}
	}
}
