package projections

import (
	"container/list"

	"github.com/plugcast/plugcast/domain"
)

// lru holds the state caches of the systems that were written last, so that a busy system is
// not loaded for every batch.
type lru struct {
	limit  int
	states map[domain.SystemID]*list.Element // of *stateCache
	recent *list.List                        // in order of use, the most recent first
}

func newLRU(limit int) *lru {
	return &lru{limit: limit, states: map[domain.SystemID]*list.Element{}, recent: list.New()}
}

// miss reports, once until put, that the system is not cached.
func (c *lru) miss(system domain.SystemID) bool {
	if _, known := c.states[system]; known {
		return false
	}
	c.states[system] = nil
	return true
}

// put adds a system for which miss returned true.
func (c *lru) put(l *stateCache) { c.states[l.state.SystemID] = c.recent.PushFront(l) }

// get returns the state of a cached system, and counts as a use.
func (c *lru) get(system domain.SystemID) *stateCache {
	element := c.states[system]
	c.recent.MoveToFront(element)
	return element.Value.(*stateCache)
}

// drop removes a system, if it is cached.
func (c *lru) drop(system domain.SystemID) {
	if element := c.states[system]; element != nil {
		c.recent.Remove(element)
	}
	delete(c.states, system)
}

// trim removes the systems that were not used for longest, down to the limit. A batch may need
// more systems at once than that.
func (c *lru) trim() {
	for c.recent.Len() > c.limit {
		oldest := c.recent.Remove(c.recent.Back()).(*stateCache)
		delete(c.states, oldest.state.SystemID)
	}
}
