package streams

// Live returns how many consumers of a partition have joined the reader and have had everything
// up to the reader's position at that moment.
func (l *Log) Live(partition int) (n int) {
	l.reading.Lock()
	defer l.reading.Unlock()
	r := l.readers[l.group(partition)]
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.parts[partition]; p != nil {
		for c := range p.consumers {
			c.mu.Lock()
			if h := &c.handover; h.live && len(h.queue) == 0 && !h.at.Before(h.from) {
				n++
			}
			c.mu.Unlock()
		}
	}
	return n
}
