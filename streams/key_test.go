package streams

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// Every deployment's Redis depends on the partition of a system: these results must never
// change.
func TestPartitionOfIsForEver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		system     domain.SystemID
		partitions int
		want       int
	}{
		{"clinica-sol", 16, 3},
		{"centro-luna", 16, 13},
		{"_platform", 16, 13},
		{"a", 16, 12},
		{"a", 1, 0},
		{"a", 1024, 140},
		{"Zahnarzt_Praxis.42", 7, 2},
	} {
		if got := partitionOf(c.system, c.partitions); got != c.want {
			t.Errorf("%s of %d: %d, want %d", c.system, c.partitions, got, c.want)
		}
	}
}

// A caller chooses scope and key, and must not reach another caller's keys.
func TestIdempotencyKeysDoNotMeet(t *testing.T) {
	t.Parallel()
	k := makeKeys("plugcast", 3)
	seen := map[string]bool{}
	for _, c := range [][3]string{{"s", "a", "b"}, {"s", "a:b", ""}, {"s", "", "a:b"}, {"s:a", "b", ""}, {"t", "a", "b"}} {
		name := k.idempotency(domain.SystemID(c[0]), &domain.Idempotency{Scope: c[1], Key: c[2]})
		if seen[name] || len(name) > 60 {
			t.Errorf("%v is %s", c, name)
		}
		seen[name] = true
	}
}

func TestKeysOfAPartitionShareASlot(t *testing.T) {
	t.Parallel()
	k := makeKeys("plugcast", 7)
	if k.events != "plugcast:{p07}:events" || k.origin != "plugcast:{p07}:origin" || k.heads != "plugcast:{p07}:heads" {
		t.Errorf("%+v", k)
	}
}
