package streams_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
)

// Read and Follow bound their pages in bytes, and lose nothing by it.
func TestPagesOfLargeEntries(t *testing.T) {
	t.Parallel()
	log := open(t, streams.Config{})
	const system, count = domain.SystemID("large"), 300
	partition := log.Partition(system)
	for i := range count {
		size := 10
		if i >= 100 && i < 250 {
			size = 60 << 10
		}
		if err := log.Client().Do(t.Context(), "XADD", log.Slot(partition)+"events", "*", "id", fmt.Sprint(i), "type", "x", "version", "1",
			"systemId", string(system), "time", "2026-11-29T03:00:00Z", "data", `{"a":"`+strings.Repeat("x", size)+`"}`).Err(); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	check := func(page []domain.Event) {
		t.Helper()
		bytes := 0
		for _, e := range page {
			if e.ID != fmt.Sprint(seen) {
				t.Fatalf("event %s instead of %d", e.ID, seen)
			}
			seen++
			bytes += len(e.Data)
		}
		if bytes > 4<<20 {
			t.Errorf("a page of %d events has %d bytes", len(page), bytes)
		}
	}
	var after domain.Position
	for {
		page, err := log.Read(t.Context(), partition, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		check(page)
		after = page[len(page)-1].Position
	}
	if seen != count {
		t.Errorf("%d entries were read", seen)
	}
	seen = 0
	errEnd := errors.New("enough")
	err := log.Follow(t.Context(), partition, domain.Position{}, func(page []domain.Event) error {
		if check(page); seen == count {
			return errEnd
		}
		return nil
	})
	if seen != count {
		t.Errorf("%d entries were followed: %v", seen, err)
	}
}
