package projections_test

import (
	"context"
	"testing"

	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer/lifecycle"
)

func TestLifecycle(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := openLog(t, redistest.URL(t), b.store)
	append1(t, log, "clinica-1", 1)
	t.Run("worker", func(t *testing.T) {
		lifecycle.Stress(t, func(*testing.T) lifecycle.Part {
			w := projections.NewWorker(projections.WorkerConfig{Store: b.store, Log: log, Jobs: []projections.Job{newJobs().run}})
			return lifecycle.Part{Run: w.Run, Use: func(context.Context) { w.Owned() }}
		})
	})
	t.Run("projector", func(t *testing.T) {
		lifecycle.Stress(t, func(*testing.T) lifecycle.Part {
			return lifecycle.Part{Run: projections.NewProjector(b.store, log, partitionOf("clinica-1")).Run}
		})
	})
}
