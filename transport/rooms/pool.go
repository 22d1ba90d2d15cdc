package rooms

import (
	"log/slog"
	"sync"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// pool does jobs, a bounded number at the same time. Systems take turns: after a
// job of one system come jobs of the others that wait, and those of one system
// are done in the order in which they came. So a thousand readers of one system
// do not keep another system's only reader waiting. Its goroutines live while
// there is something to do.
type pool struct {
	most   int
	logger *slog.Logger

	mu      sync.Mutex
	jobs    map[domain.SystemID][]func()
	ring    []domain.SystemID // those with jobs, the next one first
	queued  int
	running int
	closed  bool
	done    sync.WaitGroup
}

// submit adds a job of a system. It does not wait, and may be called under a
// room's lock. A closed pool drops it.
func (p *pool) submit(system domain.SystemID, job func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if p.jobs == nil {
		p.jobs = map[domain.SystemID][]func(){}
	}
	if len(p.jobs[system]) == 0 {
		p.ring = append(p.ring, system)
	}
	p.jobs[system] = append(p.jobs[system], job)
	p.queued++
	if p.running < p.most {
		p.running++
		p.done.Go(p.work)
	}
}

func (p *pool) work() {
	for {
		p.mu.Lock()
		if len(p.ring) == 0 {
			p.running--
			p.mu.Unlock()
			return
		}
		job := p.next()
		p.mu.Unlock()
		isolate.Do(p.logger, where, job)
	}
}

// next takes the job whose turn it is. The caller holds the lock.
func (p *pool) next() func() {
	system := p.ring[0]
	p.ring = p.ring[1:]
	jobs := p.jobs[system]
	job := jobs[0]
	jobs[0] = nil
	p.queued--
	if len(jobs) == 1 {
		delete(p.jobs, system)
	} else {
		p.jobs[system] = jobs[1:]
		p.ring = append(p.ring, system)
	}
	return job
}

// waiting returns how many jobs are not begun.
func (p *pool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
}

// close drops what was not begun and waits for what was.
func (p *pool) close() {
	p.mu.Lock()
	p.closed, p.jobs, p.ring, p.queued = true, nil, nil, 0
	p.mu.Unlock()
	p.done.Wait()
}
