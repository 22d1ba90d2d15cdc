package roomstest

import (
	"sync"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Fence is a [rooms.Fence] that keeps out whom a test says, by subject, from a
// system or, with an empty system, from everything. It is safe for concurrent
// use.
type Fence struct {
	mu   sync.Mutex
	kept map[kept]rooms.Fenced

	// Asked is called before each answer, unless it is nil. Set it before use.
	Asked func(actor domain.Actor, system domain.SystemID)
}

type kept struct {
	subject string
	system  domain.SystemID
}

// Raise keeps somebody out.
func (f *Fence) Raise(subject string, system domain.SystemID, why rooms.Fenced) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept == nil {
		f.kept = map[kept]rooms.Fenced{}
	}
	f.kept[kept{subject, system}] = why
}

// Lower ends it.
func (f *Fence) Lower(subject string, system domain.SystemID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.kept, kept{subject, system})
}

// Check implements [rooms.Fence].
func (f *Fence) Check(actor domain.Actor, system domain.SystemID) (rooms.Fenced, bool) {
	if f.Asked != nil {
		f.Asked(actor, system)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, where := range []domain.SystemID{"", system} {
		if why, ok := f.kept[kept{actor.Subject, where}]; ok {
			return why, true
		}
	}
	return rooms.Fenced{}, false
}
