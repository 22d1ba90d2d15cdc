package projections

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// changes holds the rows to be written, as columns: each table takes one statement, however
// many rows there are.
type changes struct {
	devices     deviceColumns
	equipment   equipmentColumns
	assignments assignmentColumns
	connections connectionColumns
	heads       headColumns

	released keyColumns // assignments to delete
	deleted  keyColumns // connections to delete
}

type keyColumns struct{ systems, ids []string }

func (c *keyColumns) add(system domain.SystemID, id string) {
	c.systems, c.ids = append(c.systems, string(system)), append(c.ids, id)
}

type positionColumns struct {
	systems []string
	ms, n   []int64
}

func (c *positionColumns) add(system domain.SystemID, p domain.Position) {
	at := posOf(p)
	c.systems, c.ms, c.n = append(c.systems, string(system)), append(c.ms, at.ms), append(c.n, at.n)
}

type deviceColumns struct {
	positionColumns
	ids             []string
	online, relayOn []*bool
	connections     []*domain.ConnectionID
	updated         []time.Time
	documents       []string
	attributes      []*string
}

type equipmentColumns struct {
	positionColumns
	ids        []string
	retired    []bool
	updated    []time.Time
	documents  []string
	attributes []*string
}

type assignmentColumns struct {
	positionColumns
	devices, equipment, by []string
	at                     []time.Time
}

type connectionColumns struct {
	positionColumns
	ids       []string
	stopped   []bool
	updated   []time.Time
	documents []string
}

type headColumns struct {
	positionColumns
	seqs   []int64
	hashes [][]byte
}

// gather adds the dirty rows of a system, and marks the system as clean.
func (c *changes) gather(s *stateCache) error {
	st, dirty := s.state, s.dirty
	s.dirty = noDirtyRows
	for id := range dirty.devices {
		if err := c.devices.row(st.SystemID, st.Devices[id]); err != nil {
			return err
		}
	}
	for id := range dirty.equipment {
		if err := c.equipment.row(st.SystemID, st.Equipment[id]); err != nil {
			return err
		}
	}
	for id := range dirty.assignments {
		if a := st.Assignments[id]; a != nil {
			c.assignments.row(st.SystemID, a)
		} else {
			c.released.add(st.SystemID, string(id))
		}
	}
	for id := range dirty.connections {
		if conn := st.Connections[id]; conn == nil {
			c.deleted.add(st.SystemID, string(id))
		} else if err := c.connections.row(st.SystemID, conn); err != nil {
			return err
		}
	}
	if dirty.head {
		c.heads.add(st.SystemID, st.Cursor.Position)
		c.heads.seqs = append(c.heads.seqs, int64(st.Cursor.Seq))
		c.heads.hashes = append(c.heads.hashes, append([]byte(nil), s.hash[:]...))
	}
	return nil
}

var noDirtyRows dirty

func (c *deviceColumns) row(system domain.SystemID, d *domain.Device) error {
	document, attributes, err := deviceDocument(d)
	if err != nil {
		return err
	}
	c.add(system, d.Position)
	c.ids = append(c.ids, string(d.DeviceID))
	c.online, c.relayOn = append(c.online, d.Online), append(c.relayOn, d.RelayOn)
	c.connections = append(c.connections, d.ConnectionID)
	c.updated = append(c.updated, d.UpdatedAt)
	c.documents, c.attributes = append(c.documents, document), append(c.attributes, attributes)
	return nil
}

func (c *equipmentColumns) row(system domain.SystemID, e *domain.Equipment) error {
	document, attributes, err := equipmentDocument(e)
	if err != nil {
		return err
	}
	c.add(system, e.Position)
	c.ids, c.retired = append(c.ids, string(e.EquipmentID)), append(c.retired, e.Retired)
	c.updated = append(c.updated, e.UpdatedAt)
	c.documents, c.attributes = append(c.documents, document), append(c.attributes, attributes)
	return nil
}

func (c *assignmentColumns) row(system domain.SystemID, a *domain.Assignment) {
	c.add(system, a.Position)
	c.devices, c.equipment = append(c.devices, string(a.DeviceID)), append(c.equipment, string(a.EquipmentID))
	c.by, c.at = append(c.by, a.AssignedBy), append(c.at, a.AssignedAt)
}

func (c *connectionColumns) row(system domain.SystemID, conn *domain.Connection) error {
	document, err := connectionDocument(conn)
	if err != nil {
		return err
	}
	c.add(system, conn.Position)
	c.ids, c.stopped = append(c.ids, string(conn.ConnectionID)), append(c.stopped, conn.Stopped)
	c.updated = append(c.updated, conn.UpdatedAt)
	c.documents = append(c.documents, document)
	return nil
}

const (
	upsertDevices statement = `
INSERT INTO projection.devices
       (system_id, device_id, online, relay_on, connection_id, updated_at, position_ms, position_seq, document, attributes)
SELECT s, i, o, r, c, u, m, n, d::json, a
  FROM unnest($1::text[], $2::text[], $3::boolean[], $4::boolean[], $5::text[], $6::timestamptz[], $7::bigint[], $8::bigint[],
              $9::text[], $10::text[]) AS new (s, i, o, r, c, u, m, n, d, a)
    ON CONFLICT (system_id, device_id) DO UPDATE SET
       (online, relay_on, connection_id, updated_at, position_ms, position_seq, document, attributes) =
       (excluded.online, excluded.relay_on, excluded.connection_id, excluded.updated_at, excluded.position_ms, excluded.position_seq,
        excluded.document, excluded.attributes)`
	upsertEquipment statement = `
INSERT INTO projection.equipment (system_id, equipment_id, retired, updated_at, position_ms, position_seq, document, attributes)
SELECT s, i, r, u, m, n, d::json, a
  FROM unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::text[], $8::text[])
    AS new (s, i, r, u, m, n, d, a)
    ON CONFLICT (system_id, equipment_id) DO UPDATE SET (retired, updated_at, position_ms, position_seq, document, attributes) =
       (excluded.retired, excluded.updated_at, excluded.position_ms, excluded.position_seq, excluded.document, excluded.attributes)`
	upsertAssignments statement = `
INSERT INTO projection.assignments (system_id, device_id, equipment_id, assigned_by, assigned_at, position_ms, position_seq)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], $7::bigint[])
    ON CONFLICT (system_id, device_id) DO UPDATE SET (equipment_id, assigned_by, assigned_at, position_ms, position_seq) =
       (excluded.equipment_id, excluded.assigned_by, excluded.assigned_at, excluded.position_ms, excluded.position_seq)`
	upsertConnections statement = `
INSERT INTO projection.connections (system_id, connection_id, stopped, updated_at, position_ms, position_seq, document)
SELECT s, i, x, u, m, n, d::json
  FROM unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::text[])
    AS new (s, i, x, u, m, n, d)
    ON CONFLICT (system_id, connection_id) DO UPDATE SET (stopped, updated_at, position_ms, position_seq, document) =
       (excluded.stopped, excluded.updated_at, excluded.position_ms, excluded.position_seq, excluded.document)`
	deleteAssignments statement = `
DELETE FROM projection.assignments old USING unnest($1::text[], $2::text[]) AS gone (s, i)
 WHERE old.system_id = gone.s AND old.device_id = gone.i`
	deleteConnections statement = `
DELETE FROM projection.connections old USING unnest($1::text[], $2::text[]) AS gone (s, i)
 WHERE old.system_id = gone.s AND old.connection_id = gone.i`
)

const upsertHeads = `
INSERT INTO heads (partition, system_id, position_ms, position_seq, seq, hash)
SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])
    ON CONFLICT (system_id) DO UPDATE SET (position_ms, position_seq, seq, hash) =
       (excluded.position_ms, excluded.position_seq, excluded.seq, excluded.hash)`

// queue adds the statements that write the rows into the read models of a schema.
func (c *changes) queue(b *pgx.Batch, schema string) {
	if d := &c.devices; len(d.ids) > 0 {
		b.Queue(upsertDevices.in(schema), d.systems, d.ids, d.online, d.relayOn, d.connections, d.updated, d.ms, d.n,
			d.documents, d.attributes)
	}
	if e := &c.equipment; len(e.ids) > 0 {
		b.Queue(upsertEquipment.in(schema), e.systems, e.ids, e.retired, e.updated, e.ms, e.n, e.documents, e.attributes)
	}
	if a := &c.assignments; len(a.devices) > 0 {
		b.Queue(upsertAssignments.in(schema), a.systems, a.devices, a.equipment, a.by, a.at, a.ms, a.n)
	}
	if k := &c.connections; len(k.ids) > 0 {
		b.Queue(upsertConnections.in(schema), k.systems, k.ids, k.stopped, k.updated, k.ms, k.n, k.documents)
	}
	if r := &c.released; len(r.ids) > 0 {
		b.Queue(deleteAssignments.in(schema), r.systems, r.ids)
	}
	if d := &c.deleted; len(d.ids) > 0 {
		b.Queue(deleteConnections.in(schema), d.systems, d.ids)
	}
}

// queueHeads adds the statement that writes the heads of systems of one partition.
func (c *changes) queueHeads(b *pgx.Batch, partition int) {
	if h := &c.heads; len(h.systems) > 0 {
		b.Queue(upsertHeads, partition, h.systems, h.ms, h.n, h.seqs, h.hashes)
	}
}
