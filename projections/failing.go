package projections

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// FailingPartition is a partition that this process owns and cannot project.
type FailingPartition struct {
	Partition int       `json:"partition"`
	Since     time.Time `json:"since"`  // the first failure since it last went on
	Tries     int       `json:"tries"`  // that failed since
	Reason    string    `json:"reason"` // of the last failure, in words that name no address
}

// Failing lists the partitions that projectors of this Store are stuck with: that
// failed, and have not gone on since.
func (s *Store) Failing() []FailingPartition { return s.failing.list() }

// failing knows which projections fail.
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
	one, known := f.partitions[partition]
	if !known {
		one = FailingPartition{Partition: partition, Since: time.Now().UTC()}
	}
	one.Tries++
	one.Reason = reasonOf(err)
	f.partitions[partition] = one
}

func (f *failing) clear(partition int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.partitions, partition)
}

func (f *failing) list() []FailingPartition {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]FailingPartition, 0, len(f.partitions))
	for _, one := range f.partitions {
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b FailingPartition) int { return cmp.Compare(a.Partition, b.Partition) })
	return list
}
