// Package claims decides, between all processes, whether a relay command may be sent
// to its device: the processes that hold the device take it, or the one that times
// commands out closes it, whichever comes first. Without a claim, a device that was
// offline when the command was given, and is back when the command expires, could not be
// told from one that received it, and the command would stay open until no process can
// answer it any more.
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

// Lifetime is how long a claim is kept, which is how old a command can be for which it
// is asked, and more.
const Lifetime = 2 * time.Minute

// The values of a claim.
const (
	taken  = "taken"
	closed = "closed"
)

// Claims are the claims of all processes. It is safe for concurrent use.
type Claims struct{ log *streams.Log }

// New makes Claims beside the log.
func New(log *streams.Log) *Claims { return &Claims{log} }

// Take records that this process is about to send the command. ok is false when the
// command is closed: it must not be sent any more. Several processes may take one
// command, as two may have sockets of its device. When Take fails, the command
// must not be sent either.
func (c *Claims) Take(ctx context.Context, system domain.SystemID, commandID string) (ok bool, err error) {
	return c.claim(ctx, system, commandID, taken)
}

// Close records that no process may send the command any more. ok is false when a process
// took it before: it may have been sent. Closing twice is fine.
func (c *Claims) Close(ctx context.Context, system domain.SystemID, commandID string) (ok bool, err error) {
	return c.claim(ctx, system, commandID, closed)
}

// claim says something of a command unless something else was said, and reports
// whether it holds.
func (c *Claims) claim(ctx context.Context, system domain.SystemID, commandID, says string) (bool, error) {
	sum := sha256.Sum256([]byte(string(system) + "\x00" + commandID)) // an id from another deployment may be of any form
	key := c.log.Slot(c.log.Partition(system)) + "claim:" + base64.RawURLEncoding.EncodeToString(sum[:18])
	said, err := c.log.Client().SetArgs(ctx, key, says, redis.SetArgs{Mode: "NX", Get: true, TTL: Lifetime}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("claims: %s: %w", says, err)
	}
	return said == says, nil
}
