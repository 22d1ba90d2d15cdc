package rooms

import (
	"log/slog"
	"sync"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// pool runs jobs, a bounded number at a time. Systems take turns: after a job of one system,
// the jobs of the other waiting systems come first. The jobs of one system run in order.
// So a thousand readers of one system do not delay another system's only reader. The pool
// has goroutines only while it has jobs.
type pool struct {
	max    int
	logger *slog.Logger

	mu      sync.Mutex
	jobs    map[domain.SystemID][]func()
	ring    []domain.SystemID // the systems with jobs, the next one first
	queued  int
	running int
	closed  bool
	done    sync.WaitGroup
}

// submit adds a job of a system. It does not wait, and may be called under a room's lock. A
// closed pool drops the job.
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
	if p.running < p.max {
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

// next takes the next job. The caller holds the lock.
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

// waiting returns the number of jobs that have not begun.
func (p *pool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
}

// close drops the jobs that have not begun and waits for the others.
func (p *pool) close() {
	p.mu.Lock()
	p.closed, p.jobs, p.ring, p.queued = true, nil, nil, 0
	p.mu.Unlock()
	p.done.Wait()
}
