package streams

import "sync"

// maxPageBytes is the size in bytes at which a page of entries ends before its number of
// entries. A page has at least one entry.
const maxPageBytes = 4 << 20

// firstCount is how many entries the first reads ask for, before the size of entries is known:
// as many entries of the largest allowed size as fit into a page.
const firstCount = 64

// pageSizer decides how many entries of a partition one round trip asks for. Redis bounds a
// reply by the number of entries only, so that number has to keep the reply small: a thousand
// small entries at once are fast, and a thousand large ones take too much memory. It learns
// from the replies, for all readers of the partition.
type pageSizer struct {
	mu      sync.Mutex
	count   int // for small entries; grows with each full page
	largest int // size of the largest recent entry, in bytes
}

// next returns how many entries to ask for, up to limit.
func (s *pageSizer) next(limit int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(max(s.count, firstCount), max(limit, 1), maxBatch)
	if s.largest > 0 {
		n = min(n, max(maxPageBytes/s.largest, 1))
	}
	return n
}

// entry returns the size of the largest recent entry, in bytes; 0 before the first.
func (s *pageSizer) entry() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.largest
}

// learn adjusts the sizes to a reply to a request for asked entries.
func (s *pageSizer) learn(asked int, got pageStats) {
	if got.entries == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.largest = max(got.largest, s.largest/2)
	if got.entries >= asked {
		s.count = min(2*max(s.count, firstCount), maxBatch)
	}
}

// pageStats describes the entries of a reply.
type pageStats struct {
	entries int // number of entries that Redis sent, including those behind the end of the page
	largest int // size of the largest decoded entry, in bytes
	bytes   int // size of the entries on the page
}
