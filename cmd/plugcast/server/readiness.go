package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/cmd/plugcast/metrics"
	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/transport/rest"
)

// newReadiness answers whether this process can be sent requests, and which parts of the
// deployment do not work properly. It reads the figures of all nodes, because all of them
// serve clients of this one.
func (s *Server) newReadiness() *rest.Readiness {
	log, store := s.backend.Log, s.backend.Store
	return rest.NewReadiness([]rest.Check{
		{Name: "draining", Run: func(context.Context) error {
			if s.draining.Load() {
				return errors.New("the process is stopping")
			}
			return nil
		}},
		{Name: "redis", Run: func(ctx context.Context) error { return log.Client().Ping(ctx).Err() }},
		{Name: "postgres", Run: store.Ping},
	}, func(ctx context.Context) []rest.Degradation {
		return degradations(metrics.ReadProjections(ctx, s.sockets, store))
	}, s.config.Logger)
}

// degradations are the parts that do not work properly while this process serves.
func degradations(sum metrics.ProjectionFigures) []rest.Degradation {
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
