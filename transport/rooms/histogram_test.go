package rooms

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(-5, int64(20*time.Minute)), 1, 50).Draw(t, "values")
		var h histogram
		for _, v := range values {
			h.observe(time.Duration(v), 1)
		}
		slices.Sort(values)
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		exact := time.Duration(values[min(int(q*float64(len(values))), len(values)-1)])
		got := h.snapshot().Quantile(q)
		if got < exact || got > exact+exact/8+2*time.Microsecond {
			t.Fatalf("quantile %v of %v is %s, the exact one %s", q, values, got, exact)
		}
		if n := h.snapshot().Since(h.snapshot()).Count(); n != 0 {
			t.Fatalf("%d between a moment and itself", n)
		}
	})
}

func TestHistogramBounds(t *testing.T) {
	t.Parallel()
	if bucketOf(-time.Second) != 0 || bucketOf(1<<62) != bucketCount-1 {
		t.Error("values out of range are not in the outermost buckets")
	}
	for b := range bucketCount - 1 {
		if bucketOf(upperBound(b)) != b+1 || bucketOf(upperBound(b)-1) != b {
			t.Fatalf("bucket %d ends at %s, which is in bucket %d", b, upperBound(b), bucketOf(upperBound(b)))
		}
	}
}
