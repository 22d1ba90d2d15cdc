package streams

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// hashName is stored beside the number of partitions. The two decide which partition a system
// is in.
const hashName = "fnv1a64"

// partitionOf returns the partition of a system: FNV-1a, 64 bits, of its id, modulo the number
// of partitions. It must never change, because a system would lose its events.
func partitionOf(system domain.SystemID, partitions int) int {
	h := uint64(14695981039346656037)
	for i := range len(system) {
		h = (h ^ uint64(system[i])) * 1099511628211
	}
	return int(h % uint64(partitions))
}

// keys holds the names of one partition's keys in Redis. The braces keep them on one slot of a
// cluster.
type keys struct {
	events string // the stream
	// origin holds "<position> <incarnation>". The stream begins after that position; entries
	// at or before it are not in Redis. The incarnation is a random word that changes when the
	// stream is created or repaired.
	origin string
	heads  string // hash: <system>/<aggregate> -> position of its last conditional append
	idem   string // prefix of idempotency keys
	// idemCounts is the prefix of hashes: hour since 1970 -> number of keys that were made in it.
	idemCounts string
	// cursors is a hash: <system>/<source> -> position in the source's log up to which it was
	// imported; and "" -> milliseconds up to which foreign was cleared.
	cursors string
	// foreign is a sorted set: <system>/<origin>/<id> of each imported event that may not be
	// archived yet, by the milliseconds of its position here.
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

// idempotency returns the name of a caller's key in a system. All parts are hashed, because
// callers choose them: they may be long, and may contain any delimiter.
func (k *keys) idempotency(system domain.SystemID, key *domain.Idempotency) string {
	sum := sha256.Sum256([]byte(string(system) + "\x00" + key.Scope + "\x00" + key.Key))
	return k.idem + base64.RawURLEncoding.EncodeToString(sum[:18])
}

// idempotencyCounts returns the name of the counter of a system's idempotency keys.
func (k *keys) idempotencyCounts(system domain.SystemID) string { return k.idemCounts + string(system) }

func headField(system domain.SystemID, aggregate domain.Aggregate) string {
	return string(system) + "/" + string(aggregate)
}
