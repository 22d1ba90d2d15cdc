package conformance

import (
	"testing"
	"time"
)

// The application does what it should against the original server, by way of the
// upgrade. Nothing here is lost, so nothing recovers.
func TestApp(t *testing.T) {
	t.Parallel()
	settings := Patient()
	settings.Origin = "" // any
	c := AppConfig{URL: startOriginal(t, settings), Token: "123", System: "clinica-sol"}
	t.Run("under Node", func(t *testing.T) {
		t.Parallel()
		checkApp(t, NodeApp(t, c))
	})
	t.Run("in Chromium", func(t *testing.T) {
		t.Parallel()
		page := ServePage(t)
		page.Browse(t, c)
		checkApp(t, page.Reports)
	})
}

func checkApp(t *testing.T, reports <-chan AppReport) {
	t.Helper()
	deadline := time.After(time.Minute)
	opened, connected, upgraded, seq := false, false, false, int64(0)
	for !opened || !connected || !upgraded || seq < 3 {
		select {
		case report := <-reports:
			switch report.Kind {
			case "open":
				opened = report.Transport == "polling"
			case "connect":
				connected = true
			case "upgrade":
				upgraded = report.Transport == "websocket"
			case "event":
				if seq++; report.Seq != seq || report.Event != "device-update" || report.Position == "" {
					t.Errorf("event %d is %+v", seq, report)
				}
			default:
				t.Errorf("the application says %+v", report)
			}
		case <-deadline:
			t.Fatalf("opened by polling: %t, connected: %t, upgraded: %t, events: %d", opened, connected, upgraded, seq)
		}
	}
}
