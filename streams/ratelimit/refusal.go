package ratelimit

import (
	"sync"
	"time"
)

// Bounds of the memory. Each refused flow of a system takes one entry.
const (
	maxRefusals = 4096
	maxTrust    = time.Second // so that Redis is soon asked again if it lost its counts
)

// refusals remembers refusals until the request may be allowed, so that the refused requests of
// a flood cost Redis nothing. Only time refills a bucket: until then a request that costs as
// much as a refused one, or more, is refused too. It is safe for concurrent use.
type refusals struct {
	mu    sync.Mutex
	byKey map[string]refusal // by the key in Redis
}

type refusal struct {
	cost      int
	allowed   time.Time // when such a request may be allowed
	trusted   time.Time // until when the refusal answers instead of Redis
	remaining int
}

// find returns the refusal that applies to a request of this cost at this time. ok is false if
// there is none.
func (r *refusals) find(key string, cost int, now time.Time) (known refusal, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok = r.byKey[key]
	return known, ok && cost >= known.cost && now.Before(known.trusted)
}

// add remembers that a request of this cost was refused, and for how long.
func (r *refusals) add(key string, cost, remaining int, now time.Time, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.byKey[key]; !known && len(r.byKey) >= maxRefusals {
		for k, known := range r.byKey {
			if !now.Before(known.trusted) {
				delete(r.byKey, k)
			}
		}
		if len(r.byKey) >= maxRefusals {
			return // not remembered: Redis answers the next request
		}
	}
	if r.byKey == nil {
		r.byKey = map[string]refusal{}
	}
	r.byKey[key] = refusal{cost: cost, allowed: now.Add(wait), trusted: now.Add(min(wait, maxTrust)), remaining: remaining}
}
