package migrations_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/migrations"
	"github.com/plugcast/plugcast/projections/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func exec(t *testing.T, url, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func TestApplyFromNothingAndAgain(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, nil)
	if err := migrations.Check(t.Context(), url); !errors.Is(err, migrations.ErrOlder) {
		t.Errorf("an empty database: %v", err)
	}
	before, err := migrations.Status(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := migrations.Apply(t.Context(), url, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := migrations.Check(t.Context(), url); err != nil {
		t.Error(err)
	}
	after, err := migrations.Status(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	for i := range after {
		if !before[i].AppliedAt.IsZero() || after[i].AppliedAt.IsZero() || after[i].Version != int64(i+1) {
			t.Errorf("%+v, before %+v", after[i], before[i])
		}
	}
}

// Many processes start at once, for several databases of one cluster, which share the reader's
// role.
func TestApplyAtOnce(t *testing.T) {
	t.Parallel()
	var starters sync.WaitGroup
	for range 4 {
		url := pgtest.Database(t, nil)
		for range 3 {
			starters.Go(func() {
				if err := migrations.Apply(t.Context(), url, nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
	starters.Wait()
}

func TestCheckRefusesAnotherSchema(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, nil)
	if err := migrations.Apply(t.Context(), url, nil); err != nil {
		t.Fatal(err)
	}
	exec(t, url, "INSERT INTO plugcast_migrations (version_id, is_applied) VALUES (9999, true)")
	if err := migrations.Check(t.Context(), url); !errors.Is(err, migrations.ErrNewer) {
		t.Errorf("a newer schema: %v", err)
	}
	if err := migrations.Apply(t.Context(), url, nil); !errors.Is(err, migrations.ErrNewer) {
		t.Errorf("migrating a newer schema: %v", err)
	}
	exec(t, url, "DELETE FROM plugcast_migrations WHERE version_id IN (2, 9999)")
	if err := migrations.Check(t.Context(), url); !errors.Is(err, migrations.ErrOlder) {
		t.Errorf("an older schema: %v", err)
	}
}

// A user that is neither superuser nor owner of the role can migrate its own database, as on a
// managed Postgres.
func TestApplyAsPlainOwner(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, nil)
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, url, `
		CREATE ROLE plain_owner LOGIN CREATEROLE PASSWORD 'secret';
		DO $$ BEGIN CREATE ROLE plugcast_reader NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
		ALTER DATABASE `+config.Database+` OWNER TO plain_owner`)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), url)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(),
			"DROP OWNED BY plain_owner; ALTER DATABASE "+config.Database+" OWNER TO CURRENT_USER; DROP ROLE plain_owner"); err != nil {
			t.Error(err)
		}
	})
	plain := strings.Replace(url, config.User, "plain_owner:secret", 1)
	if config.Password != "" {
		plain = strings.Replace(url, config.User+":"+config.Password, "plain_owner:secret", 1)
	}
	if err := migrations.Apply(t.Context(), plain, nil); err != nil {
		t.Fatal(err)
	}
}

// No error about a URL contains its password.
func TestErrorsKeepThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://u:hunter2@127.0.0.1:1/x", "postgres://u:hunter2@127.0.0.1:x/x", "postgres://u:hunter2@127.0.0.1:1/x?sslmode=no",
	} {
		for _, err := range []error{
			migrations.Check(t.Context(), url),
			migrations.Apply(t.Context(), url, nil),
		} {
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v", err)
			}
		}
	}
}

// Owners of several partitions create the table partition of the same month concurrently.
func TestHistoryPartitionsAreMadeOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t, nil)
	if err := migrations.Apply(t.Context(), url, nil); err != nil {
		t.Fatal(err)
	}
	const month = 31 * 24 * 3600 * 1000
	var makers sync.WaitGroup
	for range 6 {
		makers.Go(func() {
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(context.Background())
			for n := range 12 {
				if _, err := conn.Exec(t.Context(), "SELECT create_history_partition($1)", n*month); err != nil {
					t.Error(err)
				}
			}
		})
	}
	makers.Wait()
	exec(t, url, `INSERT INTO history (system_id, position_ms, position_seq, seq, id, type, version, time, actor,
			correlation_id, causation_id, device_id, data, hash)
		SELECT 's', day * 24 * 3600 * 1000::bigint, 0, 1, '', '', 1, now(), '', '', '', '', '', '' FROM generate_series(0, 330) day`)
}
