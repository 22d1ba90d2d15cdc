package streams

import "testing"

func TestAppetite(t *testing.T) {
	t.Parallel()
	var a appetite
	if n := a.next(maxBatch); n != firstCount {
		t.Errorf("begins with %d", n)
	}
	for range 10 {
		asked := a.next(maxBatch)
		a.note(asked, reading{entries: asked, largest: 300})
	}
	if n := a.next(maxBatch); n != maxBatch {
		t.Errorf("%d small entries", n)
	}
	if n := a.next(7); n != 7 {
		t.Errorf("%d of 7", n)
	}
	a.note(1000, reading{entries: 1000, largest: 64 << 10})
	if n := a.next(maxBatch); n != 64 {
		t.Errorf("%d large entries", n)
	}
	a.note(64, reading{entries: 1, largest: 16 << 20})
	if n := a.next(maxBatch); n != 1 {
		t.Errorf("%d entries that are larger than a page", n)
	}
	for range 20 {
		a.note(a.next(maxBatch), reading{entries: 1, largest: 300})
	}
	if n := a.next(maxBatch); n != maxBatch {
		t.Errorf("%d entries after the large ones are over", n)
	}
}
