// Package migrations holds the schema of the Postgres database: numbered SQL files, embedded,
// applied in order and never changed once released. There are no down migrations; the next
// number corrects a mistake.
package migrations

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var files embed.FS

// table is the table of the applied migrations.
const table = "plugcast_migrations"

// Errors of [Check]. Their texts are for operators.
var (
	ErrOlder = errors.New("the database schema is older than this build: run plugcast migrate")
	ErrNewer = errors.New("the database schema is newer than this build: run the build that created it, or a newer one")
)

// Migration is one step of the schema.
type Migration struct {
	Version   int64
	Name      string    // name of its file
	AppliedAt time.Time // zero if it was not applied yet
}

// Apply applies the missing migrations. Each migration is its own transaction, so that the
// earlier ones stay after a failure. Concurrent calls wait for each other, for up to five
// minutes. Apply fails with [ErrNewer] on a schema of a later build. logger gets a line per
// migration; nil discards them.
func Apply(ctx context.Context, url string, logger *slog.Logger) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	provider, closeDB, err := open(url)
	if err != nil {
		return fmt.Errorf("migrations: apply: %w", err)
	}
	defer closeDB()
	results, err := provider.Up(ctx)
	if partial := new(goose.PartialError); errors.As(err, &partial) {
		results = partial.Applied
	}
	for _, r := range results {
		logger.Info("migration applied", "migration", path.Base(r.Source.Path), "took", r.Duration.Round(time.Millisecond))
	}
	if err != nil {
		return fmt.Errorf("migrations: apply: %w", err)
	}
	if err := Check(ctx, url); err != nil {
		return fmt.Errorf("migrations: apply: %w", err)
	}
	return nil
}

// Status returns the migrations of this build, in order, and when each was applied. It changes
// nothing.
func Status(ctx context.Context, url string) ([]Migration, error) {
	applied, err := appliedAt(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("migrations: status: %w", err)
	}
	steps, err := embedded()
	if err != nil {
		return nil, err
	}
	for i := range steps {
		steps[i].AppliedAt = applied[steps[i].Version]
	}
	return steps, nil
}

// Check returns nil if the database has exactly the schema of this build, [ErrOlder] or
// [ErrNewer] if it has another one, and another error if the schema cannot be read. It changes
// nothing.
func Check(ctx context.Context, url string) error {
	applied, err := appliedAt(ctx, url)
	if err != nil {
		return fmt.Errorf("migrations: check: %w", err)
	}
	steps, err := embedded()
	if err != nil {
		return err
	}
	known := map[int64]bool{0: true} // goose's own first row
	for _, step := range steps {
		known[step.Version] = true
		if _, ok := applied[step.Version]; !ok {
			return ErrOlder
		}
	}
	for version := range applied {
		if !known[version] {
			return ErrNewer
		}
	}
	return nil
}

// embedded returns the migrations of this build, in order.
func embedded() ([]Migration, error) {
	names, err := fs.Glob(files, "*.sql") // sorted
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	steps := make([]Migration, len(names))
	for i, name := range names {
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("migrations: the name of %s does not begin with a number: %w", name, err)
		}
		steps[i] = Migration{Version: version, Name: name}
	}
	return steps, nil
}

// appliedAt returns the migrations that the database has. It does not use goose, which would
// create its table for this, and wait for a running migration.
func appliedAt(ctx context.Context, url string) (map[int64]time.Time, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "SELECT version_id, tstamp AT TIME ZONE 'UTC' FROM "+table+" WHERE is_applied")
	if err == nil {
		defer rows.Close()
	}
	applied := map[int64]time.Time{}
	for err == nil && rows.Next() {
		var version int64
		var at time.Time
		if err = rows.Scan(&version, &at); err == nil {
			applied[version] = at.UTC()
		}
	}
	if err == nil {
		err = rows.Err()
	}
	if missing := new(pgconn.PgError); errors.As(err, &missing) && missing.Code == undefinedTable {
		return nil, nil
	}
	return applied, err
}

// undefinedTable is the SQLSTATE of a missing table.
const undefinedTable = "42P01"

// lockTimeout is how long a call waits for another one that applies migrations, in seconds.
const lockTimeout = 300

func open(url string) (*goose.Provider, func() error, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, nil, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, lockTimeout))
	if err != nil {
		return nil, nil, err
	}
	db := stdlib.OpenDB(*config)
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(table), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		_ = db.Close()
		return nil, nil, err
	}
	return provider, db.Close, nil
}
