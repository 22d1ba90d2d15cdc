// Package bridges is where the processes of a deployment see how its bridges go:
// the one that runs a link's system writes, all can read. It knows nothing of what
// is written.
package bridges

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

// forgetAfter is when a status that nobody renews is forgotten: its link is not
// configured any more.
const forgetAfter = 24 * time.Hour

// Board is safe for concurrent use.
type Board struct {
	client redis.UniversalClient
	key    string
}

// New makes the board of the deployment whose keys begin with the prefix.
func New(client redis.UniversalClient, prefix string) *Board {
	return &Board{client: client, key: prefix + ":bridges"}
}

// Put replaces the status of a name.
func (b *Board) Put(ctx context.Context, name string, status json.RawMessage) error {
	value := strconv.FormatInt(time.Now().UnixMilli(), 10) + " " + string(status)
	if err := b.client.HSet(ctx, b.key, name, value).Err(); err != nil {
		return fmt.Errorf("bridges: put: %w", err)
	}
	return nil
}

// All lists what was put, in order of name.
func (b *Board) All(ctx context.Context) ([]json.RawMessage, error) {
	kept, err := b.client.HGetAll(ctx, b.key).Result()
	if err != nil {
		return nil, fmt.Errorf("bridges: list: %w", err)
	}
	names := make([]string, 0, len(kept))
	for name := range kept {
		names = append(names, name)
	}
	slices.Sort(names)
	list := make([]json.RawMessage, 0, len(names))
	for _, name := range names {
		at, status, _ := strings.Cut(kept[name], " ")
		ms, err := strconv.ParseInt(at, 10, 64)
		if err != nil || time.Since(time.UnixMilli(ms)) > forgetAfter || !json.Valid([]byte(status)) {
			b.client.HDel(ctx, b.key, name)
			continue
		}
		list = append(list, json.RawMessage(status))
	}
	return list, nil
}
