package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// ledger is what a writer keeps of one system: its state, its hash chain, and
// which rows of the read models differ from the database.
type ledger struct {
	state *domain.State
	hash  domain.Hash
	dirty dirty
}

// dirty names rows that have to be written.
type dirty struct {
	devices     map[domain.DeviceID]struct{}
	equipment   map[domain.EquipmentID]struct{}
	assignments map[domain.DeviceID]struct{}
	connections map[domain.ConnectionID]struct{}
	head        bool
}

// counted is an event as it goes into history, besides itself.
type counted struct {
	hash   domain.Hash
	device domain.DeviceID // that it is about, or ""
	fault  error           // why its data could not be read, if so
}

// count gives the event its seq and its place in the chain, and folds it.
func (l *ledger) count(e *domain.Event) (counted, error) {
	if !e.Position.After(l.state.Cursor.Position) {
		// Loaded with what another owner wrote after our checkpoint.
		return counted{}, fmt.Errorf("%w: %s is at %s already, and %s comes now", ErrStaleOwner, e.SystemID, l.state.Cursor, e.Position)
	}
	e.Seq = l.state.Cursor.Seq + 1
	l.hash = l.hash.Next(e)
	l.dirty.head = true
	touched, fault := l.fold(e)
	c := counted{hash: l.hash, device: touched.Device, fault: faultOf(e, fault)}
	if c.device == "" {
		// To ask the event means to read its data again, which takes as long as
		// the rest of this function.
		c.device = e.Device()
	}
	return c, nil
}

// fold folds an event and notes what it touched. It returns why its data could
// not be read, if so; [domain.ErrGap] is among the reasons.
func (l *ledger) fold(e *domain.Event) (domain.Touched, error) {
	touched, err := l.state.Apply(e)
	if err != nil {
		return touched, err
	}
	note(&l.dirty.devices, touched.Device)
	note(&l.dirty.equipment, touched.Equipment)
	note(&l.dirty.assignments, touched.Assigned)
	note(&l.dirty.assignments, touched.Released)
	note(&l.dirty.connections, touched.Connection)
	return touched, nil
}

// isGap tells the one reason that means a fault of ours: events are missing.
func isGap(err error) bool { return errors.Is(err, domain.ErrGap) }

func note[K ~string](set *map[K]struct{}, key K) {
	if key == "" {
		return
	}
	if *set == nil {
		*set = map[K]struct{}{}
	}
	(*set)[key] = struct{}{}
}

// Kinds of row in the answer of loadQuery and its like.
const (
	rowHead = iota
	rowDevice
	rowEquipment
	rowAssignment
	rowConnection
	rowCheckpoint
	rowMore // there are rows behind those of a page
)

// The rows of one system's state, in one shape, so that a single statement can
// read several kinds of them. The columns are those that scan reads.
const (
	selectHead = `
SELECT 0 AS kind, system_id::text, '' AS id, position_ms, position_seq, seq,
       '' AS t1, NULL::text AS t2, 'epoch'::timestamptz AS at, hash
  FROM heads`
	selectDevices = `
SELECT 1 AS kind, system_id::text, device_id::text AS id, position_ms, position_seq, 0::bigint AS seq,
       document::text AS t1, attributes AS t2, 'epoch'::timestamptz AS at, NULL::bytea AS hash
  FROM projection.devices`
	selectEquipment = `
SELECT 2 AS kind, system_id::text, equipment_id::text AS id, position_ms, position_seq, 0::bigint AS seq,
       document::text AS t1, attributes AS t2, 'epoch'::timestamptz AS at, NULL::bytea AS hash
  FROM projection.equipment`
	selectAssignments = `
SELECT 3 AS kind, system_id::text, device_id::text AS id, position_ms, position_seq, 0::bigint AS seq,
       equipment_id::text AS t1, assigned_by AS t2, assigned_at AS at, NULL::bytea AS hash
  FROM projection.assignments`
	selectConnections = `
SELECT 4 AS kind, system_id::text, connection_id::text AS id, position_ms, position_seq, 0::bigint AS seq,
       document::text AS t1, NULL::text AS t2, 'epoch'::timestamptz AS at, NULL::bytea AS hash
  FROM projection.connections`
	selectCheckpoint = `
SELECT 5 AS kind, '' AS system_id, '' AS id, position_ms, position_seq, 0::bigint AS seq,
       '' AS t1, NULL::text AS t2, 'epoch'::timestamptz AS at, NULL::bytea AS hash
  FROM checkpoints WHERE partition = $2`
)

// loadQuery reads everything that is kept of systems in one statement, and so
// from one snapshot; $1 is the systems and $2 a partition whose checkpoint is
// wanted too. A statement locks its tables before it takes its snapshot, so not
// even a rebuild's swap can come between them.
const loadQuery statement = selectHead + ofSystems +
	" UNION ALL " + selectDevices + ofSystems +
	" UNION ALL " + selectEquipment + ofSystems +
	" UNION ALL " + selectAssignments + ofSystems +
	" UNION ALL " + selectConnections + ofSystems +
	" UNION ALL " + selectCheckpoint

const ofSystems = " WHERE system_id = ANY ($1::text[])"

// statement is SQL on the live read models.
type statement string

// in returns the same on the read models of a schema.
func (s statement) in(schema string) string {
	if schema == readModels {
		return string(s)
	}
	return strings.ReplaceAll(string(s), readModels+".", schema+".")
}

// loading gathers the answer of loadQuery, or of a query of the same form.
type loading struct {
	ledgers    map[domain.SystemID]*ledger
	checkpoint domain.Position
	more       bool
	// unreadable, unless nil, is told of rows that cannot be read, which are left
	// out then. Without it they are errors.
	unreadable func(system domain.SystemID, id string, err error)
}

func newLoading(systems ...domain.SystemID) *loading {
	l := &loading{ledgers: make(map[domain.SystemID]*ledger, len(systems))}
	for _, system := range systems {
		l.ledgers[system] = &ledger{state: domain.NewState(system)}
	}
	return l
}

// scan takes one row.
func (l *loading) scan(rows pgx.Rows) error {
	var (
		kind       int
		system, id string
		at         place
		seq        int64
		t1         string
		t2         *string
		time       time.Time
		hash       []byte
	)
	if err := rows.Scan(&kind, &system, &id, &at.ms, &at.n, &seq, &t1, &t2, &time, &hash); err != nil {
		return err
	}
	switch kind {
	case rowCheckpoint:
		l.checkpoint = at.position()
		return nil
	case rowMore:
		l.more = true
		return nil
	}
	led := l.ledgers[domain.SystemID(system)]
	if led == nil {
		return fmt.Errorf("a row of %s was not asked for", system)
	}
	st, err := led.state, error(nil)
	switch kind {
	case rowHead:
		st.Cursor = domain.Cursor{Position: at.position(), Seq: uint64(seq)}
		err = hashFrom(hash, &led.hash)
	case rowDevice:
		st.Devices[domain.DeviceID(id)], err = readDevice(t1, t2)
	case rowEquipment:
		st.Equipment[domain.EquipmentID(id)], err = readEquipment(t1, t2)
	case rowAssignment:
		st.Assignments[domain.DeviceID(id)] = makeAssignment(id, t1, *t2, time, at)
	case rowConnection:
		st.Connections[domain.ConnectionID(id)], err = readConnection(t1)
	}
	if err != nil && l.unreadable != nil {
		l.unreadable(st.SystemID, id, err)
		led.leaveOut(kind, id)
		return nil
	}
	return err
}

// leaveOut forgets a row that could not be read. The next event about it writes it
// whole, as far as the event goes; a rebuild makes it again from history.
func (l *ledger) leaveOut(kind int, id string) {
	switch kind {
	case rowDevice:
		delete(l.state.Devices, domain.DeviceID(id))
	case rowEquipment:
		delete(l.state.Equipment, domain.EquipmentID(id))
	case rowConnection:
		delete(l.state.Connections, domain.ConnectionID(id))
	}
}

// querier is a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// loadLedgers reads systems from the read models of a schema, as the owner.
// unreadable is as in [loading].
func loadLedgers(ctx context.Context, q querier, schema string, systems []domain.SystemID,
	unreadable func(domain.SystemID, string, error),
) (map[domain.SystemID]*ledger, error) {
	l := newLoading(systems...)
	l.unreadable = unreadable
	rows, err := q.Query(ctx, loadQuery.in(schema), systems, noPartition)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := l.scan(rows); err != nil {
			return nil, err
		}
	}
	return l.ledgers, rows.Err()
}
