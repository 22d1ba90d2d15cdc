package streams

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// hashName is stored beside the number of partitions: both decide where a
// system lives.
const hashName = "fnv1a64"

// partitionOf is FNV-1a, 64 bits, of the system's id, modulo the number of
// partitions. It must never change: a system would leave its events behind.
func partitionOf(system domain.SystemID, partitions int) int {
	h := uint64(14695981039346656037)
	for i := range len(system) {
		h = (h ^ uint64(system[i])) * 1099511628211
	}
	return int(h % uint64(partitions))
}

// keys are the names of one partition's keys in Redis. The braces keep them on
// one slot of a cluster.
type keys struct {
	events string // the stream
	// origin is where the stream begins: "<position> <incarnation>". Nothing at
	// or before the position is to be read here any more, and the incarnation
	// is a new random word whenever the stream was made or repaired.
	origin string
	heads  string // hash: <system>/<aggregate> -> position of its last conditional append
	idem   string // prefix of idempotency keys
	// idemCounts is the prefix of hashes: hour since 1970 -> how many keys were made in it.
	idemCounts string
	// cursors is a hash: <system>/<source> -> position in the source's log up to
	// which it was taken; and "" -> milliseconds up to which foreign was cleared.
	cursors string
	// foreign is a sorted set: <system>/<origin>/<id> of what came from elsewhere
	// and may not be archived yet, by the milliseconds of its position here.
	foreign string
}

func slotOf(prefix string, partition int) string {
	return fmt.Sprintf("%s:{p%02d}:", prefix, partition)
}

func makeKeys(prefix string, partition int) keys {
	slot := slotOf(prefix, partition)
	return keys{
		events: slot + "events", origin: slot + "origin", heads: slot + "heads", idem: slot + "idem:", idemCounts: slot + "idem-counts:",
		cursors: slot + "cursors", foreign: slot + "foreign",
	}
}

// idempotency names a key of a caller in a system. All parts are hashed, since
// callers choose them: they may be long, and may contain any delimiter.
func (k *keys) idempotency(system domain.SystemID, key *domain.Idempotency) string {
	sum := sha256.Sum256([]byte(string(system) + "\x00" + key.Scope + "\x00" + key.Key))
	return k.idem + base64.RawURLEncoding.EncodeToString(sum[:18])
}

// made counts the idempotency keys that callers of a system made, per hour.
func (k *keys) idempotencyCounts(system domain.SystemID) string { return k.idemCounts + string(system) }

func headField(system domain.SystemID, aggregate domain.Aggregate) string {
	return string(system) + "/" + string(aggregate)
}
