package streams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// Defaults of [Config].
const (
	DefaultPrefix     = "plugcast"
	DefaultPartitions = 16
	DefaultRetention  = 24 * time.Hour
	DefaultPatience   = 2 * time.Second
	DefaultMaxKeys    = 1_000_000
)

// MaxPartitions bounds [Config.Partitions]: each costs every process a part of each read.
const MaxPartitions = 1024

// Config says where the log is and what it is like. URL or Options is required.
type Config struct {
	// URL of Redis, as [ParseURL] reads it.
	URL string
	// Options are for what a URL cannot say; they are used when URL is empty.
	// Timeouts, retries, pools and the protocol are the log's own business and
	// are overridden.
	Options *redis.UniversalOptions
	// Prefix begins every key; [DefaultPrefix] when empty. Two deployments may
	// share a Redis under two prefixes.
	Prefix string
	// Partitions is the number of streams; [DefaultPartitions] when 0. It is
	// fixed when the deployment is created.
	Partitions int
	// Retention is how long [Log.Expire] leaves events in Redis;
	// [DefaultRetention] when 0.
	Retention time.Duration
	// Patience is how long an append tries again while Redis is away and it is
	// certain that nothing was sent; [DefaultPatience] when 0, never when
	// negative.
	Patience time.Duration
	// MaxKeys is how many idempotency keys the callers of one system may have, of
	// those that are kept (24 hours); [DefaultMaxKeys] when 0.
	MaxKeys int
	// Floor returns how far a partition is archived elsewhere. It is asked
	// before the first append to a Redis that this process has not met yet, so
	// that after a loss of data new positions begin beyond the archive. Nil
	// means that nothing is archived.
	Floor func(ctx context.Context, partition int) (domain.Position, error)
	// Logger gets repairs, losses and outages. Nil drops them.
	Logger *slog.Logger
}

// Validate fills in the defaults and says what is wrong.
func (c *Config) Validate() error {
	if c.URL != "" {
		options, err := ParseURL(c.URL)
		if err != nil {
			return err
		}
		c.Options = options
	}
	if c.Options == nil {
		return errors.New("streams: config: a Redis URL is required")
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if strings.ContainsAny(c.Prefix, "{}") {
		return errors.New("streams: config: the prefix must not contain braces, which place keys in a cluster")
	}
	if c.Partitions == 0 {
		c.Partitions = DefaultPartitions
	}
	if c.Partitions < 0 || c.Partitions > MaxPartitions {
		return fmt.Errorf("streams: config: partitions must be 1 to %d, not %d", MaxPartitions, c.Partitions)
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.Retention < 0 {
		return fmt.Errorf("streams: config: retention must be positive, not %v", c.Retention)
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = DefaultMaxKeys
	}
	if c.MaxKeys < 0 {
		return fmt.Errorf("streams: config: the most keys must be positive, not %d", c.MaxKeys)
	}
	if c.Floor == nil {
		c.Floor = func(context.Context, int) (domain.Position, error) { return domain.Position{}, nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
