package pgtest_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/projections/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM plug").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

var migrations atomic.Int32

func migrate(ctx context.Context, url string) error {
	migrations.Add(1)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "CREATE TABLE plug (id text); INSERT INTO plug VALUES ('seed')")
	return err
}

func TestDatabaseIsAMigratedCopyOfOnesOwn(t *testing.T) {
	t.Parallel()
	one, two := connect(t, pgtest.Database(t, migrate)), connect(t, pgtest.Database(t, migrate))
	exec(t, one, "INSERT INTO plug VALUES ('one')")
	if n := count(t, one); n != 2 {
		t.Errorf("own database has %d rows, want the seed and one more", n)
	}
	if n := count(t, two); n != 1 {
		t.Errorf("the other test's database has %d rows, want the seed alone", n)
	}
	if n := migrations.Load(); n != 1 {
		t.Errorf("migrated %d times, want once", n)
	}
}

func TestDatabaseWithoutMigrationIsEmpty(t *testing.T) {
	t.Parallel()
	exec(t, connect(t, pgtest.Database(t, nil)), "CREATE TABLE plug ()")
	exec(t, connect(t, pgtest.Database(t, nil)), "CREATE TABLE plug ()")
}

// A connection that a test forgot to close does not keep its database.
func TestDatabaseIsDroppedWhoeverIsConnected(t *testing.T) {
	t.Parallel()
	var url string
	var held *pgx.Conn
	t.Run("user", func(t *testing.T) {
		url = pgtest.Database(t, nil)
		var err error
		if held, err = pgx.Connect(t.Context(), url); err != nil {
			t.Fatal(err)
		}
	})
	defer held.Close(context.Background())
	if conn, err := pgx.Connect(t.Context(), url); err == nil {
		_ = conn.Close(t.Context())
		t.Fatal("the database is still there")
	}
}

func TestRestartKeepsDataAndAddress(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	exec(t, connect(t, server.URL()), "CREATE TABLE plug (id text); INSERT INTO plug VALUES ('kept')")
	again := pgtest.Restart(t, server)
	if again.URL() != server.URL() {
		t.Error("restarted at another address or with another password")
	}
	if n := count(t, connect(t, again.URL())); n != 1 {
		t.Errorf("after a kill there are %d rows, want 1", n)
	}
}
