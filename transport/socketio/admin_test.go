package socketio

import (
	"sync"
	"testing"
)

// feed is a metrics feed that runs when it is told to.
type feed struct {
	mu       sync.Mutex
	next     int
	watchers map[int]func([]byte)
}

func (f *feed) Subscribe(fn func(frame []byte)) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.next
	f.next++
	f.watchers[id] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, id)
	}
}

// send gives everybody a frame, and returns how many that were.
func (f *feed) send() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fn := range f.watchers {
		fn([]byte(`{"event":"metrics","data":{"sockets":1}}`))
	}
	return len(f.watchers)
}

// Whoever is told that joining or leaving the admin dashboard failed is where it
// was, now and after a cut, and can try again.
func TestAdminDashboard(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	f := &feed{watchers: map[int]func([]byte){}}
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
		if n := f.send(); n != watchers {
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
	if c.connect(); !c.recovered {
		t.Error("not recovered")
	}
	try("leave-admin-dashboard", true, 1)
	try("leave-admin-dashboard", false, 0)
	c.connect()
	if answer := c.ask(nil, "leave-admin-dashboard", nil); answer["ok"] != false {
		t.Errorf("left what was left: %v", answer)
	}
}
