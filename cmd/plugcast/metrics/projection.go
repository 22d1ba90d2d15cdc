package metrics

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
)

// The projection faults that operators see: entries that were put into quarantine,
// and partitions that are stuck.

// stuckAfter is how long a projection may fail before anybody is told: most failures
// are over by then.
const stuckAfter = 3 * time.Second

// ProjectionFigures says which projections do not work: in the figures of a worker, of its own.
type ProjectionFigures struct {
	Failing    []projections.FailingPartition `json:"failing"`              // of the partitions that this process owns
	Quarantine *QuarantineFigures             `json:"quarantine,omitempty"` // of all partitions, as far as this process knows
}

// QuarantineFigures is how much is in quarantine.
type QuarantineFigures struct {
	Entries    int64              `json:"entries"`
	Oldest     *time.Time         `json:"oldest,omitempty"`
	Newest     *time.Time         `json:"newest,omitempty"`
	Partitions []partitionEntries `json:"partitions"` // that have any
}

type partitionEntries struct {
	Partition int   `json:"partition"`
	Entries   int64 `json:"entries"`
}

func figuresOfQuarantine(size domain.QuarantineSize) *QuarantineFigures {
	q := &QuarantineFigures{Entries: size.Entries, Partitions: []partitionEntries{}}
	if size.Entries > 0 {
		q.Oldest, q.Newest = &size.Oldest, &size.Newest
	}
	for _, partition := range slices.Sorted(maps.Keys(size.ByPartition)) {
		q.Partitions = append(q.Partitions, partitionEntries{partition, size.ByPartition[partition]})
	}
	return q
}

// stuck are the partitions of a store that have failed for too long.
func stuck(store *projections.Store, now time.Time) []projections.FailingPartition {
	return slices.DeleteFunc(store.Failing(), func(one projections.FailingPartition) bool { return now.Sub(one.Since) < stuckAfter })
}

// summariseProjections merges the figures of the workers. Two workers may report a
// partition that has just moved: the report that has failed for longer counts.
func summariseProjections(nodes []nodeFigures) ProjectionFigures {
	failing := map[int]projections.FailingPartition{}
	sum := ProjectionFigures{Failing: []projections.FailingPartition{}}
	for _, n := range nodes {
		for _, one := range n.Projections.Failing {
			if known, is := failing[one.Partition]; !is || one.Since.Before(known.Since) {
				failing[one.Partition] = one
			}
		}
		if q := n.Projections.Quarantine; q != nil && (sum.Quarantine == nil || q.Entries > sum.Quarantine.Entries) {
			sum.Quarantine = q
		}
	}
	for _, partition := range slices.Sorted(maps.Keys(failing)) {
		sum.Failing = append(sum.Failing, failing[partition])
	}
	return sum
}

// ReadProjections sums up the figures that all nodes last gave of their projections. What cannot
// be read is left out.
func ReadProjections(ctx context.Context, nodes Nodes, store *projections.Store) ProjectionFigures {
	sum := ProjectionFigures{}
	if registry, err := nodes.Nodes(ctx); err == nil { // otherwise the check of Redis fails
		sum = summariseProjections(decodeNodes(registry))
	}
	if size, err := store.QuarantineSize(ctx); err == nil { // otherwise that of Postgres fails
		sum.Quarantine = figuresOfQuarantine(size)
	}
	return sum
}

var (
	quarantineDesc          = describe("quarantined_entries", "Log entries that could not be read or projected, in total.")
	partitionQuarantineDesc = describe("partition_quarantined_entries",
		"Log entries of a partition that could not be read or projected, in total.", "partition")
	failingDesc = describe("projection_failing_seconds", "How long the projection of an owned partition has been failing.", "partition")
)

// collectProjections gives Prometheus what this worker knows.
func (s *Sampler) collectProjections(send sender) {
	s.mu.Lock()
	quarantine := s.quarantine
	s.mu.Unlock()
	send(quarantineDesc, prometheus.GaugeValue, float64(quarantine.Entries))
	for partition, n := range quarantine.ByPartition {
		send(partitionQuarantineDesc, prometheus.GaugeValue, float64(n), strconv.Itoa(partition))
	}
	for _, one := range s.parts.Store.Failing() {
		send(failingDesc, prometheus.GaugeValue, time.Since(one.Since).Seconds(), strconv.Itoa(one.Partition))
	}
}
