package clienttest

import (
	"sync"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Ban is a [rooms.Ban] that bans the subjects that a test names, from a system or,
// with an empty system, from everything. It is safe for concurrent use.
type Ban struct {
	mu   sync.Mutex
	kept map[kept]rooms.Banned

	// Asked is called before each answer, unless it is nil. Set it before use.
	Asked func(actor domain.Actor, system domain.SystemID)
}

type kept struct {
	subject string
	system  domain.SystemID
}

// Raise keeps somebody out.
func (f *Ban) Raise(subject string, system domain.SystemID, why rooms.Banned) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept == nil {
		f.kept = map[kept]rooms.Banned{}
	}
	f.kept[kept{subject, system}] = why
}

// Lower ends it.
func (f *Ban) Lower(subject string, system domain.SystemID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.kept, kept{subject, system})
}

// Check implements [rooms.Ban].
func (f *Ban) Check(actor domain.Actor, system domain.SystemID) (rooms.Banned, bool) {
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
	return rooms.Banned{}, false
}
