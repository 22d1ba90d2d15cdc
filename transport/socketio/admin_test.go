package socketio

import (
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// If joining or leaving the admin dashboard fails, the client stays where it was, also
// after a cut, and can try again.
func TestAdminDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	f := &clienttest.Feed{}
	b.metrics = f
	b.start()
	c := b.client("staff:clinica-sol").connect()
	try := func(name string, fails bool, watchers int) {
		t.Helper()
		b.sessions.fail(fails)
		if answer := c.ask(nil, name, nil); answer["ok"] != !fails {
			t.Errorf("%s: %v", name, answer)
		}
		b.sessions.fail(false)
		if n := f.Send(`{"event":"metrics","data":{"sockets":1}}`); n != watchers {
			t.Fatalf("after %s, failing: %v, %d watch", name, fails, n)
		}
		for range watchers {
			if e := c.next(); e.name != "metrics" || string(e.args[0]) != `{"sockets":1}` {
				t.Errorf("got %s %s", e.name, e.args)
			}
		}
	}
	try("join-admin-dashboard", true, 0)
	try("join-admin-dashboard", false, 1)
	try("join-admin-dashboard", false, 1)
	b.start()
	c.resume()
	try("leave-admin-dashboard", true, 1)
	try("leave-admin-dashboard", false, 0)
	c.connect()
	if answer := c.ask(nil, "leave-admin-dashboard", nil); answer["ok"] != false {
		t.Errorf("left what was left: %v", answer)
	}
}
