package metrics

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/transport/rest"
)

// The projection faults that operators see: entries that were put into quarantine,
// and partitions that are stuck.

// stuckAfter is how long a projection may fail before anybody is told: most failures
// are over by then.
const stuckAfter = 3 * time.Second

// projectionFigures is what a worker says of its projections, in its own figures.
type projectionFigures struct {
	Failing    []projections.FailingPartition `json:"failing"`              // of the partitions that this process owns
	Quarantine *quarantineFigures             `json:"quarantine,omitempty"` // of all partitions, as far as this process knows
}

// quarantineFigures is how much is in quarantine.
type quarantineFigures struct {
	Entries    int64              `json:"entries"`
	Oldest     *time.Time         `json:"oldest,omitempty"`
	Newest     *time.Time         `json:"newest,omitempty"`
	Partitions []partitionEntries `json:"partitions"` // that have any
}

type partitionEntries struct {
	Partition int   `json:"partition"`
	Entries   int64 `json:"entries"`
}

func figuresOfQuarantine(size domain.QuarantineSize) *quarantineFigures {
	q := &quarantineFigures{Entries: size.Entries, Partitions: []partitionEntries{}}
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
func summariseProjections(nodes []nodeFigures) projectionFigures {
	failing := map[int]projections.FailingPartition{}
	sum := projectionFigures{Failing: []projections.FailingPartition{}}
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

// Degradations returns the parts that do not work properly while this process serves.
// It reads the figures of all nodes, because all of them serve clients of this one.
func Degradations(ctx context.Context, nodes Nodes, store *projections.Store) []rest.Degradation {
	sum := projectionFigures{}
	if board, err := nodes.Nodes(ctx); err == nil { // else the check of Redis fails
		sum = summariseProjections(decodeNodes(board))
	}
	if size, err := store.QuarantineSize(ctx); err == nil { // else that of Postgres does
		sum.Quarantine = figuresOfQuarantine(size)
	}
	return degradationsOf(sum)
}

func degradationsOf(sum projectionFigures) []rest.Degradation {
	var found []rest.Degradation
	if len(sum.Failing) > 0 {
		oldest := slices.MinFunc(sum.Failing, func(a, b projections.FailingPartition) int { return a.Since.Compare(b.Since) })
		var partitions []string
		for _, one := range sum.Failing {
			partitions = append(partitions, strconv.Itoa(one.Partition))
		}
		found = append(found, rest.Degradation{
			Check: "projection", Count: int64(len(sum.Failing)), Since: oldest.Since,
			Detail: fmt.Sprintf("the projection of partition %s fails and is retried: state and history of its systems are not updated (%s)",
				strings.Join(partitions, ", "), oldest.Reason),
		})
	}
	if q := sum.Quarantine; q != nil && q.Entries > 0 {
		found = append(found, rest.Degradation{
			Check: "quarantine", Count: q.Entries, Since: *q.Oldest,
			Detail: fmt.Sprintf("%d entries of the log could not be read or projected and are in quarantine, the newest since %s: "+
				"see GET /api/v1/quarantine",
				q.Entries, domain.FormatTime(*q.Newest)),
		})
	}
	return found
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
