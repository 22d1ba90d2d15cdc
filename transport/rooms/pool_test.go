package rooms

import (
	"slices"
	"sync"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// A system whose readers queue by the thousand gets its turn, and so does every other
// system: the only job of a quiet system is the next but one.
func TestPoolIsFairBetweenSystems(t *testing.T) {
	t.Parallel()
	p := pool{max: 1}
	var mu sync.Mutex
	var order []domain.SystemID
	began, gate, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	p.submit("flood", func() { close(began); <-gate })
	<-began
	const floods = 1000
	var jobs sync.WaitGroup
	submit := func(system domain.SystemID) {
		jobs.Add(1)
		p.submit(system, func() {
			defer jobs.Done()
			mu.Lock()
			defer mu.Unlock()
			order = append(order, system)
		})
	}
	for range floods {
		submit("flood")
	}
	submit("quiet")
	submit("calm")
	submit("quiet")
	if n := p.waiting(); n != floods+3 {
		t.Errorf("%d wait", n)
	}
	go func() { jobs.Wait(); close(done) }()
	close(gate)
	<-done
	p.close()
	if first := slices.Clone(order[:5]); !slices.Equal(first, []domain.SystemID{"flood", "quiet", "calm", "flood", "quiet"}) {
		t.Errorf("done in the order %v", first)
	}
	if len(order) != floods+3 || p.waiting() != 0 || len(p.jobs) != 0 {
		t.Errorf("%d jobs done, %d wait", len(order), p.waiting())
	}
	p.submit("late", func() { t.Error("a closed pool did a job") })
}
