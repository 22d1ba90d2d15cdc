package clienttest

import (
	"maps"
	"slices"
	"sync"

	"github.com/plugcast/plugcast/domain"
)

// Registry is the list of sockets of one process. It is safe for concurrent use.
type Registry struct {
	mu   sync.Mutex
	list map[string]domain.Socket
}

// Put lists a socket.
func (r *Registry) Put(s domain.Socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list == nil {
		r.list = map[string]domain.Socket{}
	}
	r.list[s.SocketID] = s
}

// Remove takes a socket off the list.
func (r *Registry) Remove(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.list, id)
}

// All are the sockets that are listed, in any order.
func (r *Registry) All() []domain.Socket {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.list))
}

// Len is how many they are.
func (r *Registry) Len() int { return len(r.All()) }

// Feed is a metrics feed that a test drives. It is safe for concurrent use.
type Feed struct {
	mu       sync.Mutex
	watchers map[*func([]byte)]bool
}

// Subscribe has fn called with each frame until cancel is called.
func (f *Feed) Subscribe(fn func([]byte)) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers == nil {
		f.watchers = map[*func([]byte)]bool{}
	}
	f.watchers[&fn] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, &fn)
	}
}

// Send gives all watchers a frame, and returns how many they are.
func (f *Feed) Send(frame string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for fn := range f.watchers {
		(*fn)([]byte(frame))
	}
	return len(f.watchers)
}

// Watchers is how many there are.
func (f *Feed) Watchers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers)
}
