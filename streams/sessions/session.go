// Package sessions keeps what a client needs to go on where it was, on any
// process and after the one that served it died. What that is, is the face's
// matter.
package sessions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Lifetime is how long a session is kept after it was saved or kept last.
const Lifetime = 7 * 24 * time.Hour

// batch is how many sessions one write keeps.
const batch = 500

// Sessions is safe for concurrent use. A session that one process saved can be
// loaded by all.
type Sessions struct {
	client redis.UniversalClient
	prefix string
}

// New makes Sessions under the prefix.
func New(client redis.UniversalClient, prefix string) *Sessions {
	return &Sessions{client: client, prefix: prefix}
}

// Load returns what was saved last. ok is false when there is nothing, or nothing
// any more.
func (s *Sessions) Load(ctx context.Context, id string) (saved []byte, ok bool, err error) {
	saved, err = s.client.Get(ctx, s.key(id)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("sessions: load: %w", err)
	}
	return saved, true, nil
}

// Save keeps something for [Lifetime]. Redis has it on disk when it returns, as far
// as Redis is set up so.
func (s *Sessions) Save(ctx context.Context, id string, saved []byte) error {
	if err := s.client.Set(ctx, s.key(id), saved, Lifetime).Err(); err != nil {
		return fmt.Errorf("sessions: save: %w", err)
	}
	return nil
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
