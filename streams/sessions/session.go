// Package sessions keeps what a client needs to go on where it was, on any
// process and after the one that served it died. What that is, is the face's
// matter. A session has one holder at a time, the connection that claimed it last:
// an older one, whose network hangs, cannot overwrite it.
package sessions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Lifetime is how long a session is kept after it was saved, claimed or kept last.
const Lifetime = 7 * 24 * time.Hour

const seconds = int(Lifetime / time.Second)

// batch is how many sessions one write keeps.
const batch = 500

// Sessions is safe for concurrent use. A session that one process saved can be
// claimed by all.
type Sessions struct {
	client redis.UniversalClient
	prefix string
}

// New makes Sessions under the prefix.
func New(client redis.UniversalClient, prefix string) *Sessions {
	return &Sessions{client: client, prefix: prefix}
}

// claim makes ARGV[1] the holder of a session that there is, keeps it for ARGV[2]
// seconds, and returns what was saved. A key that is no session is like none: an
// error would turn its client away for ever.
var claim = redis.NewScript(`
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
	return false
end
local saved = redis.call('HGET', KEYS[1], 'saved')
if saved then
	redis.call('HSET', KEYS[1], 'holder', ARGV[1])
	redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return saved`)

// save writes ARGV[2] if the session is that of ARGV[1], or nobody's, and keeps it
// for ARGV[3] seconds.
var save = redis.NewScript(`
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[1] then
	return 0
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'saved', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1`)

// Claim returns what was saved last, and makes holder the only one who can save
// from now on, and keeps it for [Lifetime]. ok is false when there is nothing, or
// nothing any more.
func (s *Sessions) Claim(ctx context.Context, id, holder string) (saved []byte, ok bool, err error) {
	text, err := claim.Run(ctx, s.client, []string{s.key(id)}, holder, seconds).Text()
	if errors.Is(err, redis.Nil) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("sessions: claim: %w", err)
	}
	return []byte(text), true, nil
}

// Save keeps something for [Lifetime]. Redis has it on disk when it returns, as far
// as Redis is set up so. ok is false, and nothing is saved, when somebody else has
// claimed the session since.
func (s *Sessions) Save(ctx context.Context, id, holder string, saved []byte) (ok bool, err error) {
	did, err := save.Run(ctx, s.client, []string{s.key(id)}, holder, saved, seconds).Int()
	if err != nil {
		return false, fmt.Errorf("sessions: save: %w", err)
	}
	return did == 1, nil
}

// Keep keeps sessions for [Lifetime] from now. Those that are gone stay gone.
func (s *Sessions) Keep(ctx context.Context, ids []string) error {
	for len(ids) > 0 {
		n := min(batch, len(ids))
		_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, id := range ids[:n] {
				p.Expire(ctx, s.key(id), Lifetime)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("sessions: keep: %w", err)
		}
		ids = ids[n:]
	}
	return nil
}

func (s *Sessions) key(id string) string { return s.prefix + ":session:" + id }
