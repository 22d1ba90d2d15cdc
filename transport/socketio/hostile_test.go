package socketio

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

// attempts gives cheap attacks many attempts, so that a leak shows.
var attempts = map[string]int{
	"ever new namespaces":        10_000,
	"a flood of CONNECT packets": 10_000,
	"handshakes never used":      4_000, // four times the limit
	"a reader that never reads":  10_000,
	"polls left waiting":         64, // each takes two seconds
	"frames over the limit":      200,
	"bodies over the limit":      200,
}

// used returns the goroutines and the bytes of heap that the idle process uses.
func used() (goroutines int, heap uint64) {
	runtime.GC()
	runtime.GC() // a sync.Pool releases its items in two collections
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
}

// The server refuses hostile clients, keeps serving honest ones, and retains nothing
// afterwards. The test is not parallel because it measures the whole process.
func TestHostileClients(t *testing.T) {
	// One address may have half of the 2,000 unsettled sessions, and all clients here share one.
	b := setup(t, Config{PingInterval: time.Second, PingTimeout: time.Second, MaxUnsettled: 2000})
	b.guest = "mallory:centro-luna" // some of the hostile clients have a valid token
	b.start()
	honest := b.client("eva:clinica-sol")
	honest.ctx = t.Context()
	honest.connect()
	honest.join("clinica-sol")
	honest.cut()
	gone := func(what string) (int, uint64) {
		t.Helper()
		testpeer.Eventually(t, "the end of all connections after "+what, func() bool { return b.server.sio.Connections() == 0 })
		return used()
	}
	goroutines, heap := gone("before")
	for name, attack := range conformance.Attacks() {
		ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
		n := attempts[name]
		if n == 0 {
			n = 300
		}
		report := attack(ctx, b.endpoint, n)
		t.Logf("%s: %s", name, report)
		if report.Attempts == 0 || ctx.Err() != nil {
			t.Errorf("%s: the attack failed: %s", name, report)
		}
		cancel()
		b.append(sol, 1)
		if honest.connect(); !honest.recovered { // the server may still be closing the attack's connections
			t.Errorf("%s: an honest client was forgotten", name)
		}
		if e := honest.next(); e.name != "device-update" {
			t.Errorf("%s: an honest client got %s", name, e.name)
		}
		honest.cut()
		var left string
		testpeer.Eventually(t, "the server to be rid of "+name, func() bool { // closing connections takes a moment
			goroutinesNow, heapNow := gone(name)
			left = fmt.Sprintf("%d goroutines and %d KiB are left, and were %d and %d before", goroutinesNow, heapNow>>10, goroutines, heap>>10)
			return goroutinesNow <= goroutines+5 && heapNow < heap+2<<20
		}, func() string { return left })
	}
}
