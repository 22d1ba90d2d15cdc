package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// Classes of advisory locks, the first of their two numbers.
const (
	ownerLocks    = 0x706c7567 // "plug"; the second number is the partition
	presenceLocks = ownerLocks + 1
	rebuildLocks  = ownerLocks + 2
	writeLocks    = ownerLocks + 3 // held by the transaction that writes a partition
)

// lease is a session of Postgres that holds advisory locks: one that says that
// this worker lives, shared by all workers, and one for each partition that it
// owns. The locks end with the session: when the process dies, when its machine
// is gone, and, because Postgres ends a session that stays idle, when it froze.
type lease struct {
	conn     *pgx.Conn
	patience time.Duration // for an answer
}

// takeLease opens a session that Postgres ends once it is idle for as long as
// the term. Whoever holds it looks around more often than that.
func takeLease(ctx context.Context, config *pgx.ConnConfig, term time.Duration) (*lease, error) {
	config = config.Copy()
	config.RuntimeParams["idle_session_timeout"] = strconv.FormatInt(term.Milliseconds(), 10)
	config.RuntimeParams["application_name"] = "plugcast worker"
	ctx, cancel := context.WithTimeout(ctx, term)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	l := &lease{conn: conn, patience: term / 2}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock_shared($1::int, 0)", presenceLocks); err != nil {
		l.end()
		return nil, err
	}
	return l, nil
}

// end closes the session, and with it gives back every lock.
func (l *lease) end() {
	ctx, cancel := context.WithTimeout(context.Background(), l.patience)
	defer cancel()
	_ = l.conn.Close(ctx) // a session that cannot be closed in order is closed without
}

// field is who owns what at a moment.
type field struct {
	workers int
	quota   int          // how many partitions are for us
	held    map[int]bool // partitions that somebody holds, whether it is us
}

// look tells who lives and who owns what, and keeps the session from idling.
func (l *lease) look(ctx context.Context, partitions int) (field, error) {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	rows, err := l.conn.Query(ctx, `
		SELECT classid::bigint = $1, objid::bigint::int, pid, pid = pg_backend_pid() FROM pg_locks
		 WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint IN ($1, $2)
		   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
		int64(ownerLocks), int64(presenceLocks))
	if err != nil {
		return field{}, fmt.Errorf("look at the locks: %w", err)
	}
	type member struct {
		pid int
		us  bool
	}
	var members []member
	f := field{held: map[int]bool{}}
	var owner, us bool
	var partition, pid int
	_, err = pgx.ForEachRow(rows, []any{&owner, &partition, &pid, &us}, func() error {
		if owner {
			f.held[partition] = us
		} else {
			members = append(members, member{pid, us})
		}
		return nil
	})
	if err != nil {
		return field{}, fmt.Errorf("look at the locks: %w", err)
	}
	// Everybody sorts alike, so that the quotas add up to all partitions.
	slices.SortFunc(members, func(a, b member) int { return cmp.Compare(a.pid, b.pid) })
	rank := slices.IndexFunc(members, func(m member) bool { return m.us })
	if rank < 0 {
		return field{}, errors.New("look at the locks: our own is not there")
	}
	f.workers = len(members)
	f.quota = partitions / f.workers
	if rank < partitions%f.workers {
		f.quota++
	}
	return f, nil
}

// try takes a partition unless somebody has it.
func (l *lease) try(ctx context.Context, partition int) (taken bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	err = l.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1::int, $2::int)", ownerLocks, partition).Scan(&taken)
	return taken, err
}

// give gives a partition back.
func (l *lease) give(ctx context.Context, partition int) error {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	_, err := l.conn.Exec(ctx, "SELECT pg_advisory_unlock($1::int, $2::int)", ownerLocks, partition)
	return err
}
