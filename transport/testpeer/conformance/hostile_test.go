package conformance

import (
	"context"
	"testing"
	"time"
)

// The attacks must be attacks: each reaches the server, which is there afterwards.
func TestAttacks(t *testing.T) {
	t.Parallel()
	base := startOriginal(t, Brisk())
	for name, attack := range Attacks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			report := attack(ctx, base+"/socket.io/", 20)
			t.Log(report)
			if report.Attempts == 0 || report.Failed > 0 {
				t.Errorf("the attack failed: %s", report)
			}
			if _, err := OpenWebSocket(ctx, base+"/socket.io/"); err != nil {
				t.Errorf("the server is gone: %v", err)
			}
		})
	}
}

// A server that is not there is not attacked, and that is no hang.
func TestAttackOnNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, attack := range Attacks() {
		if report := attack(ctx, "http://127.0.0.1:1/socket.io/", 3); report.Accepted > 0 || report.Attempts != 3 {
			t.Errorf("%s: %s", name, report)
		}
	}
}
