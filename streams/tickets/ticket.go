// Package tickets keeps the tickets that stand in for a token where only a URL can
// carry a credential: those for one use, and those for the event stream of one
// system, which a browser's EventSource shows again whenever it reconnects.
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

// Lifetime is how long a ticket waits to be used.
const Lifetime = 30 * time.Second

// Office issues tickets and takes them back. It is safe for concurrent use, and
// a ticket issued by one process is good at every other.
type Office struct {
	client redis.UniversalClient
	prefix string
}

// New makes an Office that keeps its tickets under the prefix.
func New(client redis.UniversalClient, prefix string) *Office {
	return &Office{client: client, prefix: prefix}
}

// record is an actor as a ticket stores it.
type record struct {
	Subject    string            `json:"subject"`
	Role       domain.Role       `json:"role"`
	Systems    []domain.SystemID `json:"systems,omitempty"`
	AllSystems bool              `json:"allSystems,omitempty"`
	ExpiresAt  time.Time         `json:"expiresAt"`
}

// Issue returns a ticket that stands for the actor, and until when it is good:
// [Lifetime] from now, or the end of the actor's own authority if that is
// sooner. What the ticket opens lives as long as that authority.
func (o *Office) Issue(ctx context.Context, actor domain.Actor) (string, time.Time, error) {
	value, err := json.Marshal(record(actor))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("tickets: issue: %w", err)
	}
	ticket, now := rand.Text(), time.Now()
	expires := now.Add(Lifetime)
	if !actor.ExpiresAt.IsZero() && actor.ExpiresAt.Before(expires) {
		expires = actor.ExpiresAt
	}
	if err := o.client.Set(ctx, o.key(ticket), value, max(expires.Sub(now), time.Millisecond)).Err(); err != nil {
		return "", time.Time{}, fmt.Errorf("tickets: issue: %w", err)
	}
	return ticket, expires, nil
}

// Redeem returns the actor that a ticket stands for. It does so once: ok is
// false for a ticket that was used, is too old, or never was.
func (o *Office) Redeem(ctx context.Context, ticket string) (actor domain.Actor, ok bool, err error) {
	value, err := o.client.GetDel(ctx, o.key(ticket)).Bytes()
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

// IssueStream returns a ticket that is good for the event stream of one system, again
// and again until the actor's authority ends, which is the time that it returns. The
// same actor gets the same ticket for the same stream. The ticket has the actor in it,
// sealed, so it leaves nothing in Redis: it may live as long as a token, and a token of
// every system may ask for any number of streams.
func (o *Office) IssueStream(ctx context.Context, actor domain.Actor, system domain.SystemID) (string, time.Time, error) {
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
	// Of the processes that make the first key one wins, and all use that one.
	known, err := o.client.SetArgs(ctx, o.sealKey(), key, redis.SetArgs{Mode: "NX", Get: true}).Result()
	switch {
	case err == nil:
		key = []byte(known)
	case !errors.Is(err, redis.Nil):
		return "", time.Time{}, fmt.Errorf("tickets: issue for a stream: %w", err)
	}
	s, err := newSeal(key)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("tickets: issue for a stream: %w", err)
	}
	return s.close(value), actor.ExpiresAt, nil
}

// Stream returns the actor that a ticket of [Office.IssueStream] stands for, also when
// the actor's authority has ended. ok is false for one that is unknown, or for the
// stream of another system.
func (o *Office) Stream(ctx context.Context, ticket string, system domain.SystemID) (actor domain.Actor, ok bool, err error) {
	key, err := o.client.Get(ctx, o.sealKey()).Bytes()
	if errors.Is(err, redis.Nil) {
		return domain.Actor{}, false, nil // none was made
	}
	if err != nil {
		return domain.Actor{}, false, fmt.Errorf("tickets: look a stream's up: %w", err)
	}
	s, err := newSeal(key)
	if err != nil {
		return domain.Actor{}, false, fmt.Errorf("tickets: look a stream's up: %w", err)
	}
	value, ok := s.open(ticket)
	if !ok {
		return domain.Actor{}, false, nil
	}
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return domain.Actor{}, false, fmt.Errorf("tickets: look a stream's up: %w", err)
	}
	if len(r.Systems) != 1 || r.Systems[0] != system {
		return domain.Actor{}, false, nil
	}
	return domain.Actor(r), true, nil
}

func (o *Office) sealKey() string { return o.prefix + ":stream-ticket-key" }

func (o *Office) key(ticket string) string { return o.prefix + ":ticket:" + ticket }
