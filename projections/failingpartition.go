package projections

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// FailingPartition is a partition that this process owns and cannot project.
type FailingPartition struct {
	Partition int       `json:"partition"`
	Since     time.Time `json:"since"`  // time of the first failure since the last success
	Tries     int       `json:"tries"`  // failed attempts since then
	Reason    string    `json:"reason"` // of the last failure, without addresses
}

// Failing returns the partitions that projectors of this Store cannot project: those that
// failed and have not written a batch since, in order.
func (s *Store) Failing() []FailingPartition { return s.failing.list() }

// failing records which projections fail.
type failing struct {
	mu         sync.Mutex
	partitions map[int]FailingPartition
}

func (f *failing) note(partition int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.partitions == nil {
		f.partitions = map[int]FailingPartition{}
	}
	failure, known := f.partitions[partition]
	if !known {
		failure = FailingPartition{Partition: partition, Since: time.Now().UTC()}
	}
	failure.Tries++
	failure.Reason = reasonOf(err)
	f.partitions[partition] = failure
}

func (f *failing) clear(partition int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.partitions, partition)
}

func (f *failing) list() []FailingPartition {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.partitions), func(a, b FailingPartition) int { return cmp.Compare(a.Partition, b.Partition) })
}
