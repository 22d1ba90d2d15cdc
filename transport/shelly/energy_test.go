package shelly

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

// Not by the last bit of a float64, and not when a new holder goes on.
func TestEnergyNeverFalls(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var e energy
		counter := rapid.Float64Range(0, 1e7).Draw(t, "counter")
		last := 0.0
		for range rapid.IntRange(1, 200).Draw(t, "readings") {
			counter *= rapid.SampledFrom([]float64{0, 0.1, 0.7, 0.99999, 1, 1.1, 1.0000001}).Draw(t, "factor")
			counter += rapid.SampledFrom([]float64{0, 0.1, 1.0 / 3}).Draw(t, "more")
			if rapid.IntRange(0, 9).Draw(t, "holder") == 0 {
				e = energyOf(e.total, e.counter)
			}
			e.count(counter)
			total, known := e.total.Get()
			if !known || total < last {
				t.Fatalf("it fell from %v to %v", last, total)
			}
			if e.counter != domain.Some(counter) {
				t.Fatalf("the counter is %v, want %v", e.counter, counter)
			}
			last = total
		}
	})
}
