package peer

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// Large events make small batches: a batch is bounded in bytes too.
func TestBatchesOfLargeEvents(t *testing.T) {
	t.Parallel()
	data := make([]byte, maxBody/2)
	batches := make(chan []domain.Event, readAhead)
	for range readAhead {
		batches <- []domain.Event{{Data: data}}
	}
	if got := fillBatch([]domain.Event{{Data: data}}, batches); len(got) != 2 {
		t.Errorf("a batch has %d events of %d bytes", len(got), len(data))
	}
	close(batches)
	if got := fillBatch([]domain.Event{{}}, batches); len(got) != 3 { // two large events fill it
		t.Errorf("a batch has %d events", len(got))
	}
}
