package legacy

import (
	"testing"
	"time"
)

// A server may pass one kind of event on as it is and make another anew: that the
// first comes back with its mark says nothing about the second.
func TestEchoesByEvent(t *testing.T) {
	t.Parallel()
	now := time.Now()
	e := newEchoes(time.Minute)
	e.emitted("assignment", "{}", now)
	e.emitted("update", "{}", now)
	e.marked("update")
	e.emitted("update", "{}", now)
	if e.isEcho("update", "{}", now) {
		t.Error("an update without a mark passes for an echo, though they come back with theirs")
	}
	if !e.isEcho("assignment", "{}", now) {
		t.Error("the echo of an assignment was not known")
	}
	if e.isEcho("assignment", "{}", now) {
		t.Error("one emission had two echoes")
	}
	e.emitted("assignment", "{}", now)
	if e.isEcho("assignment", "{}", now.Add(2*time.Minute)) {
		t.Error("an echo was known after its time")
	}
	if len(e.sent) != 0 || len(e.order) != 0 {
		t.Errorf("%d and %d are left", len(e.sent), len(e.order))
	}
}

// A server that makes an event anew and says which room it was for sends an echo.
func TestEchoWithItsSystem(t *testing.T) {
	t.Parallel()
	ours := object{"deviceId": quoted("d1"), "powerW": []byte("1.0")}
	theirs := object{"powerW": []byte("1"), "systemId": quoted("clinica-sol"), "deviceId": quoted("d1")}
	if ours.canonical() != theirs.canonical() {
		t.Errorf("%s is another than %s", ours.canonical(), theirs.canonical())
	}
}
