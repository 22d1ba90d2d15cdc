package limits

import (
	"sync"
	"time"
)

// Bounds of what is remembered. Each flow of a system that is refused takes one place.
const (
	maxRefusals  = 4096
	longestTrust = time.Second // so that a Redis that lost its counts is asked again soon
)

// refusals remembers what Redis refused until it may be allowed, so that the refused
// requests of a flood cost Redis nothing. Only time refills a bucket: a request that
// costs as much as one that was refused, or more, is refused until then. It is safe
// for concurrent use.
type refusals struct {
	mu sync.Mutex
	of map[string]refusal // by the key in Redis
}

type refusal struct {
	cost      int
	allowed   time.Time // when the request may be allowed
	trusted   time.Time // until when Redis is not asked: allowed, or sooner
	remaining int
}

// find returns the refusal that stands for a cost at a time, or false.
func (r *refusals) find(key string, cost int, now time.Time) (refusal, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one, ok := r.of[key]
	return one, ok && cost >= one.cost && now.Before(one.trusted)
}

// add remembers that a cost was refused at a time, and for how long.
func (r *refusals) add(key string, cost, remaining int, now time.Time, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.of[key]; !known && len(r.of) >= maxRefusals {
		for k, one := range r.of {
			if !now.Before(one.trusted) {
				delete(r.of, k)
			}
		}
		if len(r.of) >= maxRefusals {
			return // Redis is asked, as without a memory
		}
	}
	if r.of == nil {
		r.of = map[string]refusal{}
	}
	r.of[key] = refusal{cost: cost, allowed: now.Add(wait), trusted: now.Add(min(wait, longestTrust)), remaining: remaining}
}
