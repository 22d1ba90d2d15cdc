package streams

import "testing"

func TestPageSizer(t *testing.T) {
	t.Parallel()
	var s pageSizer
	if n := s.next(maxBatch); n != firstCount {
		t.Errorf("begins with %d", n)
	}
	for range 10 {
		asked := s.next(maxBatch)
		s.learn(asked, pageStats{entries: asked, largest: 300})
	}
	if n := s.next(maxBatch); n != maxBatch {
		t.Errorf("%d small entries", n)
	}
	if n := s.next(7); n != 7 {
		t.Errorf("%d of 7", n)
	}
	s.learn(1000, pageStats{entries: 1000, largest: 64 << 10})
	if n := s.next(maxBatch); n != 64 {
		t.Errorf("%d large entries", n)
	}
	s.learn(64, pageStats{entries: 1, largest: 16 << 20})
	if n := s.next(maxBatch); n != 1 {
		t.Errorf("%d entries that are larger than a page", n)
	}
	for range 20 {
		s.learn(s.next(maxBatch), pageStats{entries: 1, largest: 300})
	}
	if n := s.next(maxBatch); n != maxBatch {
		t.Errorf("%d entries after the large ones", n)
	}
}
