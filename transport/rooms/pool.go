package rooms

import "sync"

// pool does jobs, a bounded number at the same time and in the order in which
// they came. Its goroutines live while there is something to do.
type pool struct {
	most int

	mu      sync.Mutex
	queue   []func()
	running int
	closed  bool
	done    sync.WaitGroup
}

// submit adds a job. It does not wait, and may be called under a room's lock.
// A closed pool drops it.
func (p *pool) submit(job func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.queue = append(p.queue, job)
	if p.running < p.most {
		p.running++
		p.done.Go(p.work)
	}
}

func (p *pool) work() {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.running--
			p.mu.Unlock()
			return
		}
		job := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.mu.Unlock()
		job()
	}
}

// waiting returns how many jobs are not begun.
func (p *pool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

// close drops what was not begun and waits for what was.
func (p *pool) close() {
	p.mu.Lock()
	p.closed, p.queue = true, nil
	p.mu.Unlock()
	p.done.Wait()
}
