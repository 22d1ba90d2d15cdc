package reactions

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
)

// Bounds of the stored letters, so that no system pushes out those of another or fills Redis.
const (
	// MaxPerSystem is the most dead letters of a system: the newest are kept.
	MaxPerSystem = 100
	// MaxSystems is the most systems of a partition with dead letters: the latest are kept.
	MaxSystems = 1000
	// retention is how long the letters of a system are kept after its last one.
	retention = 7 * 24 * time.Hour
	// maxError bounds the text of an error, in bytes.
	maxError = 500
	// systemsPerRead is the number of systems whose letters List holds in memory at a time.
	systemsPerRead = 64
)

// DeadLetters stores the events whose reaction was given up, for all processes of the
// deployment. It is safe for concurrent use. The letters are in Redis and not in Postgres,
// because a reaction often fails because Postgres does. They are a bounded hint for operators;
// the event itself is in history.
type DeadLetters struct{ log *streams.Log }

// NewDeadLetters returns the dead letters in the log's Redis.
func NewDeadLetters(log *streams.Log) *DeadLetters { return &DeadLetters{log} }

// putScript stores a letter. KEYS: the systems of the partition with letters, the system's
// letters. ARGV: system, letter, its time in ms, MaxPerSystem, MaxSystems, retention in ms.
var putScript = redis.NewScript(`
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1)
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3] - ARGV[6])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[5] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
`)

// Put stores a letter. It cuts the text of the error to 500 bytes.
func (l *DeadLetters) Put(ctx context.Context, letter domain.DeadLetter) error {
	letter.Error = domain.TruncateText(letter.Error, maxError)
	text, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("dead letters: put: %w", err)
	}
	partition := l.log.Partition(letter.SystemID)
	err = putScript.Run(ctx, l.log.Client(), []string{l.systemsKey(partition), l.key(partition, letter.SystemID)},
		string(letter.SystemID), text, letter.Time.UnixMilli(), MaxPerSystem, MaxSystems, retention.Milliseconds()).Err()
	if err != nil {
		return fmt.Errorf("dead letters: put: %w", err)
	}
	return nil
}

// List returns at most limit letters, the newest first: those of a system, or of all systems if
// system is "". It skips letters that it cannot decode.
func (l *DeadLetters) List(ctx context.Context, system domain.SystemID, limit int) ([]domain.DeadLetter, error) {
	letters := []domain.DeadLetter{}
	add := func(partition int, systems []string) error {
		pipe := l.log.Client().Pipeline()
		replies := make([]*redis.StringSliceCmd, len(systems))
		for i, name := range systems {
			replies[i] = pipe.LRange(ctx, l.key(partition, domain.SystemID(name)), 0, int64(min(limit, MaxPerSystem))-1)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		for _, reply := range replies {
			for _, text := range reply.Val() {
				var letter domain.DeadLetter
				if json.Unmarshal([]byte(text), &letter) == nil { // a letter of another version may not decode
					letters = append(letters, letter)
				}
			}
		}
		slices.SortStableFunc(letters, func(a, b domain.DeadLetter) int {
			return cmp.Or(b.Time.Compare(a.Time), b.Position.Compare(a.Position))
		})
		letters = letters[:min(len(letters), limit)]
		return nil
	}
	if system != "" {
		if err := add(l.log.Partition(system), []string{string(system)}); err != nil {
			return nil, fmt.Errorf("dead letters: list: %w", err)
		}
		return letters, nil
	}
	for partition := range l.log.Partitions() {
		systems, err := l.log.Client().ZRevRange(ctx, l.systemsKey(partition), 0, int64(limit)-1).Result()
		if err != nil {
			return nil, fmt.Errorf("dead letters: list: %w", err)
		}
		for some := range slices.Chunk(systems, systemsPerRead) {
			if err := add(partition, some); err != nil {
				return nil, fmt.Errorf("dead letters: list: %w", err)
			}
		}
	}
	return letters, nil
}

func (l *DeadLetters) systemsKey(partition int) string { return l.log.Slot(partition) + "dead" }

// key names the list of a system's letters. A system's id has no colon, so it cannot collide.
func (l *DeadLetters) key(partition int, system domain.SystemID) string {
	return l.systemsKey(partition) + ":" + string(system)
}
