package clienttest

import (
	"sync"

	"github.com/plugcast/plugcast/domain"
)

// Ban is a [client.Bans] that bans the subjects that a test names, from a system or,
// with an empty system, from everything. It is safe for concurrent use.
type Ban struct {
	mu   sync.Mutex
	kept map[kept]domain.Ban

	// Asked is called before each answer, unless it is nil. Set it before use.
	Asked func(actor domain.Actor, system domain.SystemID)
}

type kept struct {
	subject string
	system  domain.SystemID
}

// Raise keeps somebody out.
func (f *Ban) Raise(subject string, system domain.SystemID, why domain.Ban) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept == nil {
		f.kept = map[kept]domain.Ban{}
	}
	f.kept[kept{subject, system}] = why
}

// Lower ends it.
func (f *Ban) Lower(subject string, system domain.SystemID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.kept, kept{subject, system})
}

// Check implements [client.Bans].
func (f *Ban) Check(actor domain.Actor, system domain.SystemID) (domain.Ban, bool) {
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
	return domain.Ban{}, false
}
