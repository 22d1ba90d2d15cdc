package streams

import "sync"

// maxPageBytes is where a page of entries ends besides its number of entries. A page
// has at least one entry.
const maxPageBytes = 4 << 20

// firstCount is how many entries the first reads ask for, before it is known how large
// they are: as many of the largest that are allowed as fit into a page.
const firstCount = 64

// appetite decides how many entries of a partition one round trip asks for. Redis bounds
// a reply by entries alone, so that is what has to keep it small: a thousand small
// entries at once are fast, and a thousand large ones are more than anybody should
// hold. It learns from what came, for all readers of the partition.
type appetite struct {
	mu      sync.Mutex
	count   int // of small entries; grows with each full page
	largest int // bytes of the largest entry that came lately
}

// next is how many to ask for, up to limit.
func (a *appetite) next(limit int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(max(a.count, firstCount), max(limit, 1), maxBatch)
	if a.largest > 0 {
		n = min(n, max(maxPageBytes/a.largest, 1))
	}
	return n
}

// entry is the size of the largest entry that came lately, in bytes; 0 when none has.
func (a *appetite) entry() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.largest
}

// note takes in what came for a question for asked entries.
func (a *appetite) note(asked int, got reading) {
	if got.entries == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.largest = max(got.largest, a.largest/2)
	if got.entries >= asked {
		a.count = min(2*max(a.count, firstCount), maxBatch)
	}
}

// reading is what a reply held.
type reading struct {
	entries int // that Redis sent, also those behind the end of the page
	largest int // bytes of the largest that was read
	bytes   int // of those on the page
}
