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

// lease is a Postgres session that holds advisory locks: one that shows that this worker is
// alive, shared by all workers, and one for each partition that the worker owns. The locks end
// with the session: when the process dies, when its machine fails, and when it freezes, because
// Postgres ends an idle session.
type lease struct {
	conn    *pgx.Conn
	timeout time.Duration // for an answer of Postgres
}

// openLease opens a session that Postgres ends after idleTimeout without a statement. The
// worker must use it more often than that.
func openLease(ctx context.Context, config *pgx.ConnConfig, idleTimeout time.Duration) (*lease, error) {
	config = config.Copy()
	config.RuntimeParams["idle_session_timeout"] = strconv.FormatInt(idleTimeout.Milliseconds(), 10)
	config.RuntimeParams["application_name"] = "plugcast worker"
	ctx, cancel := context.WithTimeout(ctx, idleTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	l := &lease{conn: conn, timeout: idleTimeout / 2}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock_shared($1::int, 0)", presenceLocks); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// close closes the session, which releases every lock.
func (l *lease) close() {
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	_ = l.conn.Close(ctx) // if the session cannot be closed in order, the connection is
}

// ownership says which workers own which partitions at one moment.
type ownership struct {
	workers int
	share   int          // number of partitions that this worker should own
	held    map[int]bool // by owned partition: whether this worker owns it
}

// inspect returns the ownership, and keeps the session from idling.
func (l *lease) inspect(ctx context.Context, partitions int) (ownership, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	rows, err := l.conn.Query(ctx, `
		SELECT classid::bigint = $1, objid::bigint::int, pid, pid = pg_backend_pid() FROM pg_locks
		 WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint IN ($1, $2)
		   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
		int64(ownerLocks), int64(presenceLocks))
	if err != nil {
		return ownership{}, fmt.Errorf("read the locks: %w", err)
	}
	type member struct {
		pid int
		us  bool
	}
	var members []member
	o := ownership{held: map[int]bool{}}
	var owner, us bool
	var partition, pid int
	_, err = pgx.ForEachRow(rows, []any{&owner, &partition, &pid, &us}, func() error {
		if owner {
			o.held[partition] = us
		} else {
			members = append(members, member{pid, us})
		}
		return nil
	})
	if err != nil {
		return ownership{}, fmt.Errorf("read the locks: %w", err)
	}
	// Every worker sorts the same way, so that the shares add up to all partitions.
	slices.SortFunc(members, func(a, b member) int { return cmp.Compare(a.pid, b.pid) })
	rank := slices.IndexFunc(members, func(m member) bool { return m.us })
	if rank < 0 {
		return ownership{}, errors.New("read the locks: the lock of this worker is missing")
	}
	o.workers = len(members)
	o.share = partitions / o.workers
	if rank < partitions%o.workers {
		o.share++
	}
	return o, nil
}

// acquire takes a partition, unless another worker has it.
func (l *lease) acquire(ctx context.Context, partition int) (acquired bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	err = l.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1::int, $2::int)", ownerLocks, partition).Scan(&acquired)
	return acquired, err
}

// release gives a partition back.
func (l *lease) release(ctx context.Context, partition int) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	_, err := l.conn.Exec(ctx, "SELECT pg_advisory_unlock($1::int, $2::int)", ownerLocks, partition)
	return err
}
