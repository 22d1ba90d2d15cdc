// Package claims decides between all processes whether a relay command may be sent to its
// device: the processes that hold the device take the command, or the process that times
// commands out closes it, whichever comes first. Without a claim, a device that was offline
// when the command was given, and that is back when the command expires, could not be told from
// a device that received the command. The command would then stay open until no process can
// complete it any more. Package claims also reads the recent commands and outcomes from the log
// ([Store.Recent]), so that a new owner of a partition knows which commands are still open.
package claims

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
)

// Lifetime is how long Redis keeps a claim: longer than the greatest age at which a process
// still claims a command.
const Lifetime = 2 * time.Minute

// The states of a command.
const (
	taken  = "taken"
	closed = "closed"
)

// Store holds the claims of all processes. It is safe for concurrent use.
type Store struct{ log *streams.Log }

// New returns the Store in the log's Redis.
func New(log *streams.Log) *Store { return &Store{log} }

// Take records that this process is about to send the command. ok is false if the command is
// closed: it must not be sent any more. Several processes may take the same command, because
// more than one can hold a socket of the device. If Take fails, the command must not be sent
// either.
func (s *Store) Take(ctx context.Context, system domain.SystemID, commandID string) (ok bool, err error) {
	return s.claim(ctx, system, commandID, taken)
}

// Close records that no process may send the command any more. ok is false if a process took
// the command before: it may have been sent. Closing a command twice is fine.
func (s *Store) Close(ctx context.Context, system domain.SystemID, commandID string) (ok bool, err error) {
	return s.claim(ctx, system, commandID, closed)
}

// claim sets the state of a command unless it has one, and reports whether the command is in
// that state now.
func (s *Store) claim(ctx context.Context, system domain.SystemID, commandID, state string) (bool, error) {
	sum := sha256.Sum256([]byte(string(system) + "\x00" + commandID)) // the id of another deployment's command may contain anything
	key := s.log.Slot(s.log.Partition(system)) + "claim:" + base64.RawURLEncoding.EncodeToString(sum[:18])
	current, err := s.log.Client().SetArgs(ctx, key, state, redis.SetArgs{Mode: "NX", Get: true, TTL: Lifetime}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("claims: %s: %w", state, err)
	}
	return current == state, nil
}
