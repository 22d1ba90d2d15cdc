package socketio

import (
	"fmt"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// BenchmarkRest is what a delivery costs more for a client that is in several
// rooms.
func BenchmarkRest(b *testing.B) {
	for _, rooms := range []int{1, 16} {
		b.Run(fmt.Sprint(rooms, "-rooms"), func(b *testing.B) {
			s := &socket{session: Session{Turn: 20}}
			for i := range rooms {
				at := domain.Position{Ms: 1_795_461_046_705 + uint64(i)}
				s.members = append(s.members, &membership{socket: s, system: domain.SystemID(fmt.Sprint("clinic-", i)), sent: at})
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = s.members[0].rest()
			}
		})
	}
}
