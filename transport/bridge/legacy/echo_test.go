package legacy

import (
	"testing"
	"time"
)

// A server may pass on one kind of event unchanged and rebuild another. A mark that comes
// back with the first kind says nothing about the second.
func TestEchoesByEvent(t *testing.T) {
	t.Parallel()
	now := time.Now()
	e := newEchoes(time.Minute)
	e.add("assignment", "{}", now)
	e.add("update", "{}", now)
	e.setMarked("update")
	e.add("update", "{}", now)
	if e.isEcho("update", "{}", now) {
		t.Error("an update without a mark is taken for an echo, although echoes of updates have their mark")
	}
	if !e.isEcho("assignment", "{}", now) {
		t.Error("the echo of an assignment was not recognized")
	}
	if e.isEcho("assignment", "{}", now) {
		t.Error("one emission had two echoes")
	}
	e.add("assignment", "{}", now)
	if e.isEcho("assignment", "{}", now.Add(2*time.Minute)) {
		t.Error("an echo was recognized after the window")
	}
	if len(e.counts) != 0 || len(e.sent) != 0 {
		t.Errorf("%d and %d are left", len(e.counts), len(e.sent))
	}
}

// A server that rebuilds an event and adds the room's system still sends an echo.
func TestEchoWithItsSystem(t *testing.T) {
	t.Parallel()
	ours := object{"deviceId": quoted("d1"), "powerW": []byte("1.0")}
	theirs := object{"powerW": []byte("1"), "systemId": quoted("clinica-sol"), "deviceId": quoted("d1")}
	if ours.canonical() != theirs.canonical() {
		t.Errorf("%s differs from %s", ours.canonical(), theirs.canonical())
	}
}
