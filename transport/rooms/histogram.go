package rooms

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets are log-linear: exact below 16 µs, then 8 per doubling. So a value is known to
// within 12 %, up to half an hour.
const (
	exactBuckets = 16
	perDoubling  = 8
	doublings    = 27
	bucketCount  = exactBuckets + doublings*perDoubling
)

// histogram counts durations, with weights. An observation costs one atomic addition.
type histogram struct {
	buckets [bucketCount]atomic.Uint64
}

func (h *histogram) observe(d time.Duration, weight int) {
	h.buckets[bucketOf(d)].Add(uint64(weight))
}

func (h *histogram) snapshot() Histogram {
	var s Histogram
	for i := range h.buckets {
		s.counts[i] = h.buckets[i].Load()
	}
	return s
}

func bucketOf(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < exactBuckets {
		return int(us)
	}
	exponent := bits.Len64(us) - 1 // at least 4
	within := us >> (exponent - 3) & (perDoubling - 1)
	return min(exactBuckets+(exponent-4)*perDoubling+int(within), bucketCount-1)
}

// upperBound returns the least duration above the bucket.
func upperBound(bucket int) time.Duration {
	if bucket < exactBuckets {
		return time.Duration(bucket+1) * time.Microsecond
	}
	bucket -= exactBuckets
	exponent, within := bucket/perDoubling+4, uint64(bucket%perDoubling)
	return time.Duration((perDoubling+within+1)<<(exponent-3)) * time.Microsecond
}

// Histogram is a distribution of durations at one moment.
type Histogram struct {
	counts [bucketCount]uint64
}

// Since returns the counts since an earlier histogram.
func (h Histogram) Since(earlier Histogram) Histogram {
	for i := range h.counts {
		h.counts[i] -= earlier.counts[i]
	}
	return h
}

// Count returns the number of durations.
func (h Histogram) Count() (n uint64) {
	for _, count := range h.counts {
		n += count
	}
	return n
}

// Quantile returns a duration that a fraction q (0 to 1) of the durations do not exceed, at
// most 12 % above the least such duration; 0 if there are none.
func (h Histogram) Quantile(q float64) time.Duration {
	total := h.Count()
	if total == 0 {
		return 0
	}
	rank, seen := uint64(q*float64(total)), uint64(0)
	for i, count := range h.counts {
		if seen += count; seen > rank || seen == total {
			return upperBound(i)
		}
	}
	return upperBound(bucketCount - 1)
}
