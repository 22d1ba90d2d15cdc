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
	DefaultPrefix             = "plugcast"
	DefaultPartitions         = 16
	DefaultRetention          = 24 * time.Hour
	DefaultRetryFor           = 2 * time.Second
	DefaultMaxIdempotencyKeys = 1_000_000
)

// MaxPartitions bounds [Config.Partitions]: each partition makes every read more expensive.
const MaxPartitions = 1024

// Config holds the settings of a log. URL or Options is required.
type Config struct {
	// URL is the URL of Redis, as [ParseURL] accepts it.
	URL string
	// Options are used if URL is empty, for settings that a URL cannot express. The log
	// overrides timeouts, retries, pools and the protocol.
	Options *redis.UniversalOptions
	// Prefix begins every key; [DefaultPrefix] if empty. Two deployments can share a Redis
	// under two prefixes.
	Prefix string
	// Partitions is the number of streams; [DefaultPartitions] if 0. It is fixed when the
	// deployment is created.
	Partitions int
	// Retention is how long [Log.Expire] leaves events in Redis; [DefaultRetention] if 0.
	Retention time.Duration
	// RetryFor is how long an append is retried while Redis is away and it is certain that
	// nothing was sent; [DefaultRetryFor] if 0, no retries if negative.
	RetryFor time.Duration
	// MaxIdempotencyKeys is how many idempotency keys of one system are remembered, in their 24
	// hours, before new ones are refused; [DefaultMaxIdempotencyKeys] if 0.
	MaxIdempotencyKeys int
	// Floor returns the position up to which a partition is archived. The log calls it before
	// the first append to a Redis that this process has not verified yet, so that after a loss
	// of data new positions begin beyond the archive. Nil means that nothing is archived.
	Floor func(ctx context.Context, partition int) (domain.Position, error)
	// Logger gets repairs, losses and outages. Nil discards them.
	Logger *slog.Logger
}

// Validate fills in the defaults, and returns an error for a setting that is not valid.
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
		return errors.New("streams: config: the prefix must not contain braces, which streamState keys in a cluster")
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
	if c.RetryFor == 0 {
		c.RetryFor = DefaultRetryFor
	}
	if c.MaxIdempotencyKeys == 0 {
		c.MaxIdempotencyKeys = DefaultMaxIdempotencyKeys
	}
	if c.MaxIdempotencyKeys < 0 {
		return fmt.Errorf("streams: config: the number of idempotency keys must be positive, not %d", c.MaxIdempotencyKeys)
	}
	if c.Floor == nil {
		c.Floor = func(context.Context, int) (domain.Position, error) { return domain.Position{}, nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
