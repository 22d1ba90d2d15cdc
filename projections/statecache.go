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

// stateCache is a writer's copy of one system: its state, its hash chain, and the rows of the
// read models that differ from the database.
type stateCache struct {
	state *domain.State
	hash  domain.Hash
	dirty dirty
}

// dirty holds the keys of the rows that have to be written.
type dirty struct {
	devices     map[domain.DeviceID]struct{}
	equipment   map[domain.EquipmentID]struct{}
	assignments map[domain.DeviceID]struct{}
	connections map[domain.ConnectionID]struct{}
	head        bool
}

// numbered is the part of an event's row in history that is not in the event.
type numbered struct {
	hash   domain.Hash
	device domain.DeviceID // the device that the event concerns, or ""
	fault  error           // why its data cannot be read, or nil
}

// number gives the event its seq and its hash in the chain, and folds it.
func (s *stateCache) number(e *domain.Event) (numbered, error) {
	if !e.Position.After(s.state.Cursor.Position) {
		// The loaded state contains events that another owner wrote after our checkpoint.
		return numbered{}, fmt.Errorf("%w: %s is at %s already, before the event at %s", ErrStaleOwner, e.SystemID, s.state.Cursor, e.Position)
	}
	e.Seq = s.state.Cursor.Seq + 1
	s.hash = s.hash.Next(e)
	s.dirty.head = true
	touched, fault := s.fold(e)
	n := numbered{hash: s.hash, device: touched.Device, fault: faultOf(e, fault)}
	if n.device == "" {
		// Device decodes the data again, which takes as long as the rest of this function.
		n.device = e.Device()
	}
	return n, nil
}

// fold folds an event and marks the rows that it touched as dirty. It returns the error by
// which the event's data cannot be read, if so; [domain.ErrGap] is among these errors.
func (s *stateCache) fold(e *domain.Event) (domain.ChangedRows, error) {
	touched, err := s.state.Apply(e)
	if err != nil {
		return touched, err
	}
	mark(&s.dirty.devices, touched.Device)
	mark(&s.dirty.equipment, touched.Equipment)
	mark(&s.dirty.assignments, touched.Assigned)
	mark(&s.dirty.assignments, touched.Released)
	mark(&s.dirty.connections, touched.Connection)
	return touched, nil
}

// isGap reports whether an error of fold is an internal fault: events are missing.
func isGap(err error) bool { return errors.Is(err, domain.ErrGap) }

func mark[K ~string](set *map[K]struct{}, key K) {
	if key == "" {
		return
	}
	if *set == nil {
		*set = map[K]struct{}{}
	}
	(*set)[key] = struct{}{}
}

// Kinds of row in the result of loadQuery and similar queries.
const (
	rowHead = iota
	rowDevice
	rowEquipment
	rowAssignment
	rowConnection
	rowCheckpoint
	rowMore // there are rows behind those of a page
)

// The rows of one system's state, with the same columns, so that one statement can read several
// kinds of them. scan reads these columns.
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

// loadQuery reads the whole state of systems in one statement, and so from one snapshot. $1 is
// the systems, and $2 a partition whose checkpoint is read too. A statement locks its tables
// before it takes its snapshot, so not even a rebuild's swap can come between the two.
const loadQuery statement = selectHead + ofSystems +
	" UNION ALL " + selectDevices + ofSystems +
	" UNION ALL " + selectEquipment + ofSystems +
	" UNION ALL " + selectAssignments + ofSystems +
	" UNION ALL " + selectConnections + ofSystems +
	" UNION ALL " + selectCheckpoint

const ofSystems = " WHERE system_id = ANY ($1::text[])"

// statement is SQL for the live read models.
type statement string

// in returns the statement for the read models of a schema.
func (s statement) in(schema string) string {
	if schema == readModels {
		return string(s)
	}
	return strings.ReplaceAll(string(s), readModels+".", schema+".")
}

// loading collects the rows of loadQuery, or of a query with the same columns.
type loading struct {
	states     map[domain.SystemID]*stateCache
	checkpoint domain.Position
	more       bool
	// unreadable, unless nil, is called with rows that cannot be decoded, which are then
	// omitted. Without it they are errors.
	unreadable func(system domain.SystemID, id string, err error)
}

func newLoading(systems ...domain.SystemID) *loading {
	l := &loading{states: make(map[domain.SystemID]*stateCache, len(systems))}
	for _, system := range systems {
		l.states[system] = &stateCache{state: domain.NewState(system)}
	}
	return l
}

// scan reads one row.
func (l *loading) scan(rows pgx.Rows) error {
	var (
		kind       int
		system, id string
		at         pos
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
	cached := l.states[domain.SystemID(system)]
	if cached == nil {
		return fmt.Errorf("unexpected row of system %s", system)
	}
	st, err := cached.state, error(nil)
	switch kind {
	case rowHead:
		st.Cursor = domain.Cursor{Position: at.position(), Seq: uint64(seq)}
		err = hashFrom(hash, &cached.hash)
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
		cached.omit(kind, id)
		return nil
	}
	return err
}

// omit drops a row that could not be decoded. The next event about it writes the row again, as
// far as the event describes it; a rebuild restores it from history.
func (s *stateCache) omit(kind int, id string) {
	switch kind {
	case rowDevice:
		delete(s.state.Devices, domain.DeviceID(id))
	case rowEquipment:
		delete(s.state.Equipment, domain.EquipmentID(id))
	case rowConnection:
		delete(s.state.Connections, domain.ConnectionID(id))
	}
}

// querier is a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// loadStates reads systems from the read models of a schema, as the owner of the tables.
// unreadable is as in [loading].
func loadStates(ctx context.Context, q querier, schema string, systems []domain.SystemID,
	unreadable func(domain.SystemID, string, error),
) (map[domain.SystemID]*stateCache, error) {
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
	return l.states, rows.Err()
}
