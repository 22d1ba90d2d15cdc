// Package bridgestatus stores the status of each bridge for all processes of a deployment: the
// process that runs a bridge for a system writes it, and every process can read it. The package
// does not interpret the statuses.
package bridgestatus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// forgetAfter is how long a status lives that no process renews: its bridge is no longer
// configured.
const forgetAfter = 24 * time.Hour

// Store holds one status per name. It is safe for concurrent use.
type Store struct {
	client redis.UniversalClient
	key    string
}

// New returns the Store of the deployment whose keys begin with the prefix.
func New(client redis.UniversalClient, prefix string) *Store {
	return &Store{client: client, key: prefix + ":bridges"}
}

// Put replaces the status of a name. It adds the time, so that the status expires a day after
// the last Put.
func (s *Store) Put(ctx context.Context, name string, status json.RawMessage) error {
	value := strconv.FormatInt(time.Now().UnixMilli(), 10) + " " + string(status)
	if err := s.client.HSet(ctx, s.key, name, value).Err(); err != nil {
		return fmt.Errorf("bridge status: put: %w", err)
	}
	return nil
}

// List returns the statuses that have not expired, in order of name. It removes the others from
// Redis.
func (s *Store) List(ctx context.Context) ([]json.RawMessage, error) {
	stored, err := s.client.HGetAll(ctx, s.key).Result()
	if err != nil {
		return nil, fmt.Errorf("bridge status: list: %w", err)
	}
	names := make([]string, 0, len(stored))
	for name := range stored {
		names = append(names, name)
	}
	slices.Sort(names)
	list := make([]json.RawMessage, 0, len(names))
	for _, name := range names {
		at, status, _ := strings.Cut(stored[name], " ")
		ms, err := strconv.ParseInt(at, 10, 64)
		if err != nil || time.Since(time.UnixMilli(ms)) > forgetAfter || !json.Valid([]byte(status)) {
			s.client.HDel(ctx, s.key, name) // if that fails, the next All removes it
			continue
		}
		list = append(list, json.RawMessage(status))
	}
	return list, nil
}
