// Package tickets issues tickets, which stand in for a token where only a URL can carry a
// credential. There are two kinds: a ticket for one use, and a ticket for the event stream of
// one system, which a browser's EventSource presents again whenever it reconnects.
package tickets

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// Lifetime is how long an unused one-use ticket stays valid.
const Lifetime = 30 * time.Second

// Store issues and redeems tickets. It is safe for concurrent use. A ticket that one process
// issued can be redeemed by every other process.
type Store struct {
	client redis.UniversalClient
	prefix string
}

// New returns a Store. prefix begins the names of its keys in Redis.
func New(client redis.UniversalClient, prefix string) *Store {
	return &Store{client: client, prefix: prefix}
}

// record is the stored form of an actor.
type record struct {
	Subject    string            `json:"subject"`
	Role       domain.Role       `json:"role"`
	Systems    []domain.SystemID `json:"systems,omitempty"`
	AllSystems bool              `json:"allSystems,omitempty"`
	ExpiresAt  time.Time         `json:"expiresAt"`
}

// Issue returns a one-use ticket for the actor, and the time at which it expires: after
// [Lifetime], or when the actor's own authority ends if that is sooner. A connection that the
// ticket opens may live as long as that authority.
func (s *Store) Issue(ctx context.Context, actor domain.Actor) (string, time.Time, error) {
	value, err := json.Marshal(record(actor))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("tickets: issue: %w", err)
	}
	ticket, now := rand.Text(), time.Now()
	expires := now.Add(Lifetime)
	if !actor.ExpiresAt.IsZero() && actor.ExpiresAt.Before(expires) {
		expires = actor.ExpiresAt
	}
	if err := s.client.Set(ctx, s.key(ticket), value, max(expires.Sub(now), time.Millisecond)).Err(); err != nil {
		return "", time.Time{}, fmt.Errorf("tickets: issue: %w", err)
	}
	return ticket, expires, nil
}

// Redeem returns the actor of a one-use ticket and removes the ticket. ok is false for a ticket
// that was used before, has expired, or was never issued.
func (s *Store) Redeem(ctx context.Context, ticket string) (actor domain.Actor, ok bool, err error) {
	value, err := s.client.GetDel(ctx, s.key(ticket)).Bytes()
	if errors.Is(err, redis.Nil) {
		return domain.Actor{}, false, nil
	}
	if err != nil {
		return domain.Actor{}, false, fmt.Errorf("tickets: redeem: %w", err)
	}
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return domain.Actor{}, false, fmt.Errorf("tickets: redeem: %w", err)
	}
	return domain.Actor(r), true, nil
}

// IssueStream returns a ticket for the event stream of one system, and the time at which it
// expires: when the actor's authority ends. Until then the ticket can be presented any number
// of times. The same actor gets the same ticket for the same stream. The ticket contains the
// actor, sealed, and leaves nothing in Redis: it may live as long as a token, and a token for
// every system may ask for any number of streams.
func (s *Store) IssueStream(ctx context.Context, actor domain.Actor, system domain.SystemID) (string, time.Time, error) {
	if !actor.ExpiresAt.After(time.Now()) {
		return "", time.Time{}, errors.New("tickets: issue for a stream: the authority has ended")
	}
	actor.Systems, actor.AllSystems = []domain.SystemID{system}, false
	value, err := json.Marshal(record(actor))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("tickets: issue for a stream: %w", err)
	}
	key := make([]byte, sealKeySize)
	_, _ = rand.Read(key) // never fails
	// If several processes make the first key at once, one wins and all use its key.
	known, err := s.client.SetArgs(ctx, s.sealKey(), key, redis.SetArgs{Mode: "NX", Get: true}).Result()
	switch {
	case err == nil:
		key = []byte(known)
	case !errors.Is(err, redis.Nil):
		return "", time.Time{}, fmt.Errorf("tickets: issue for a stream: %w", err)
	}
	sealer, err := newSealer(key)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("tickets: issue for a stream: %w", err)
	}
	return sealer.seal(value), actor.ExpiresAt, nil
}

// Stream returns the actor of a ticket from [Store.IssueStream], even after the actor's
// authority has ended: the caller checks that. ok is false for an unknown ticket, and for the
// ticket of another system's stream.
func (s *Store) Stream(ctx context.Context, ticket string, system domain.SystemID) (actor domain.Actor, ok bool, err error) {
	key, err := s.client.Get(ctx, s.sealKey()).Bytes()
	if errors.Is(err, redis.Nil) {
		return domain.Actor{}, false, nil // no process has issued a stream ticket yet
	}
	if err != nil {
		return domain.Actor{}, false, fmt.Errorf("tickets: look up a stream ticket: %w", err)
	}
	sealer, err := newSealer(key)
	if err != nil {
		return domain.Actor{}, false, fmt.Errorf("tickets: look up a stream ticket: %w", err)
	}
	value, ok := sealer.open(ticket)
	if !ok {
		return domain.Actor{}, false, nil
	}
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return domain.Actor{}, false, fmt.Errorf("tickets: look up a stream ticket: %w", err)
	}
	if len(r.Systems) != 1 || r.Systems[0] != system {
		return domain.Actor{}, false, nil
	}
	return domain.Actor(r), true, nil
}

func (s *Store) sealKey() string { return s.prefix + ":stream-ticket-key" }

func (s *Store) key(ticket string) string { return s.prefix + ":ticket:" + ticket }
