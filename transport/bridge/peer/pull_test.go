package peer

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// Large events are taken in small batches: what is gathered is bounded in bytes too.
func TestBatchesOfLargeEvents(t *testing.T) {
	t.Parallel()
	data := make([]byte, maxBody/2)
	batches := make(chan []domain.Event, waiting)
	for range waiting {
		batches <- []domain.Event{{Data: data}}
	}
	if got := withWaiting([]domain.Event{{Data: data}}, batches); len(got) != 2 {
		t.Errorf("a batch has %d events of %d bytes", len(got), len(data))
	}
	close(batches)
	if got := withWaiting([]domain.Event{{}}, batches); len(got) != 3 { // two fill it
		t.Errorf("a batch has %d events", len(got))
	}
}
