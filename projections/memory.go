package projections

import (
	"container/list"

	"github.com/plugcast/plugcast/domain"
)

// memory keeps the ledgers of the systems that were written last, so that a busy
// system is not loaded for every batch.
type memory struct {
	limit   int
	ledgers map[domain.SystemID]*list.Element // of *ledger
	recent  *list.List                        // the most recent first
}

func newMemory(limit int) *memory {
	return &memory{limit: limit, ledgers: map[domain.SystemID]*list.Element{}, recent: list.New()}
}

// miss reports, once until put, that the system is not remembered.
func (m *memory) miss(system domain.SystemID) bool {
	if _, known := m.ledgers[system]; known {
		return false
	}
	m.ledgers[system] = nil
	return true
}

func (m *memory) put(l *ledger) { m.ledgers[l.state.SystemID] = m.recent.PushFront(l) }

// get returns what was put, and counts as a use.
func (m *memory) get(system domain.SystemID) *ledger {
	element := m.ledgers[system]
	m.recent.MoveToFront(element)
	return element.Value.(*ledger)
}

// drop forgets a system, if it is known.
func (m *memory) drop(system domain.SystemID) {
	if element := m.ledgers[system]; element != nil {
		m.recent.Remove(element)
	}
	delete(m.ledgers, system)
}

// trim forgets what was not used for longest, down to the limit. A batch may
// need more systems at once than that.
func (m *memory) trim() {
	for m.recent.Len() > m.limit {
		oldest := m.recent.Remove(m.recent.Back()).(*ledger)
		delete(m.ledgers, oldest.state.SystemID)
	}
}
