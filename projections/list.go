package projections

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// A page of a list has up to limit rows of one kind after an id, in order of id, from the first
// for an empty id. It also ends at [PageBytes]. more reports whether there are further rows. A
// page is a part of the system's present state, with the related rows, read in
// one statement and so as of one moment.

// PageBytes is the size in bytes at which a page ends before its limit of rows. A page has at
// least one row.
const PageBytes = 4 << 20

// DevicePage returns a page of the system's devices, with their assignments and
// their connections.
func (s *Store) DevicePage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.DeviceID, limit int,
) (st *domain.State, more bool, err error) {
	return s.listPage(ctx, actor, system, devicePage, string(after), limit)
}

// EquipmentPage returns a page of the system's equipment, with the assignments of the plugs
// that feed it. Retired equipment is included only if retired is set.
func (s *Store) EquipmentPage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.EquipmentID, limit int,
	retired bool,
) (st *domain.State, more bool, err error) {
	query := equipmentPage
	if retired {
		query = allEquipmentPage
	}
	return s.listPage(ctx, actor, system, query, string(after), limit)
}

// ConnectionPage returns a page of the system's connections.
func (s *Store) ConnectionPage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.ConnectionID, limit int,
) (st *domain.State, more bool, err error) {
	return s.listPage(ctx, actor, system, connectionPage, string(after), limit)
}

func (s *Store) listPage(ctx context.Context, actor domain.Actor, system domain.SystemID, query, after string, limit int,
) (*domain.State, bool, error) {
	more := false
	st, err := s.reach(ctx, system, domain.Position{}, func(l *loading) error {
		err := s.read(ctx, scopeOf(actor), l.scan, query, system, s.partition(system), after, pageSize(limit), PageBytes)
		more = l.more
		return err
	})
	return st, more, err
}

var (
	devicePage = pageOf(selectDevices, "device_id", "") +
		// Row by row, because the planner would hash all rows of the system otherwise.
		" UNION ALL SELECT a.* FROM page, LATERAL (" + selectAssignments + ofSystem + " AND device_id = page.id OFFSET 0) AS a" +
		" UNION ALL " + selectConnections + ofSystem + ` AND connection_id IN (
			SELECT d.connection_id FROM page, LATERAL (
				SELECT connection_id FROM projection.devices WHERE system_id = $1 AND device_id = page.id OFFSET 0) AS d)`
	equipmentPage    = pageOf(selectEquipment, "equipment_id", " AND NOT retired") + holders
	allEquipmentPage = pageOf(selectEquipment, "equipment_id", "") + holders
	connectionPage   = pageOf(selectConnections, "connection_id", "")
)

const holders = " UNION ALL SELECT a.* FROM page, LATERAL (" + selectAssignments + ofSystem + " AND equipment_id = page.id OFFSET 0) AS a"

// pageOf returns the query for a page: $3 is the id that it begins after, $4 the number of rows
// and $5 the number of bytes at which it ends.
func pageOf(rows, key, condition string) string {
	return `
WITH candidates AS (
	SELECT *, row_number() OVER w AS n, sum(octet_length(t1) + coalesce(octet_length(t2), 0)) OVER w AS bytes
	  FROM (` + rows + ofSystem + " AND " + key + " > $3" + condition + " ORDER BY " + key + ` LIMIT $4::int + 1) AS candidate
	WINDOW w AS (ORDER BY id COLLATE "C")
), page AS (
	SELECT kind, system_id, id, position_ms, position_seq, seq, t1, t2, at, hash
	  FROM candidates WHERE n <= $4::int AND (n = 1 OR bytes <= $5)
)` + selectHead + ofSystem +
		" UNION ALL SELECT * FROM page" +
		" UNION ALL " + selectCheckpoint +
		" UNION ALL SELECT 6, '', '', 0, 0, 0, '', NULL, 'epoch', NULL WHERE (SELECT count(*) FROM candidates) > (SELECT count(*) FROM page)"
}

// SystemOfConnection returns the system of a connection, among those that the actor sees. If
// several systems have a connection with that id, those that the actor's token names are
// preferred, and then those whose connection was created in this deployment. It fails with
// [domain.CodeUnknownConnection] if there is none, and with [domain.CodeAmbiguousConnection] if
// several are left.
func (s *Store) SystemOfConnection(ctx context.Context, actor domain.Actor, id domain.ConnectionID) (domain.SystemID, error) {
	type candidate struct {
		system domain.SystemID
		rank   int // the lowest is preferred
	}
	const most = 100 // more would be ambiguous too
	found, err := listRows(ctx, s, actor, func(rows pgx.Rows) (*candidate, error) {
		var c candidate
		var document string
		if err := rows.Scan(&c.system, &document); err != nil {
			return nil, err
		}
		connection, err := readConnection(document)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(actor.Systems, c.system) {
			c.rank += 2
		}
		if connection.Origin != "" {
			c.rank++
		}
		return &c, nil
	}, `SELECT system_id, document::text FROM projection.connections WHERE connection_id = $1
		 ORDER BY system_id = ANY($2::text[]) DESC, system_id LIMIT $3`, id, append([]domain.SystemID{}, actor.Systems...), most)
	slices.SortStableFunc(found, func(a, b *candidate) int { return cmp.Compare(a.rank, b.rank) })
	first, err := single(found, err, domain.CodeUnknownConnection, "connection", string(id))
	if err != nil {
		return "", err
	}
	if len(found) > 1 && found[1].rank == first.rank {
		return "", domain.Fail(domain.KindConflict, domain.CodeAmbiguousConnection,
			"several systems have a connection "+strconv.Quote(string(id))+": name the system in ?systemId=")
	}
	return first.system, nil
}

// System is the end of a system's history.
type System struct {
	SystemID  domain.SystemID
	Partition int
	Head      domain.Cursor
	Hash      domain.Hash // hash of the newest event: the head of the chain
}

// Systems returns a page of the systems with history, among those that the actor sees, in order
// of id.
func (s *Store) Systems(ctx context.Context, actor domain.Actor, after domain.SystemID, limit int) ([]*System, error) {
	return listRows(ctx, s, actor, scanSystem, systemQuery+" WHERE system_id > $1 ORDER BY system_id LIMIT $2", after, pageSize(limit))
}

// Head returns the newest event of the system's hash chain and its hash; zero before its first
// event.
func (s *Store) Head(ctx context.Context, actor domain.Actor, system domain.SystemID) (domain.Cursor, domain.Hash, error) {
	found, err := listRows(ctx, s, actor, scanSystem, systemQuery+" WHERE system_id = $1", system)
	if err != nil || len(found) == 0 {
		return domain.Cursor{}, domain.Hash{}, err
	}
	return found[0].Head, found[0].Hash, nil
}

const systemQuery = "SELECT system_id, partition, position_ms, position_seq, seq, hash FROM heads"

func scanSystem(rows pgx.Rows) (*System, error) {
	var system System
	var at pos
	var seq int64
	var hash []byte
	if err := rows.Scan(&system.SystemID, &system.Partition, &at.ms, &at.n, &seq, &hash); err != nil {
		return nil, err
	}
	system.Head = domain.Cursor{Position: at.position(), Seq: uint64(seq)}
	return &system, hashFrom(hash, &system.Hash)
}

// hashFrom decodes a hash of a row.
func hashFrom(stored []byte, into *domain.Hash) error {
	if len(stored) != len(into) {
		return fmt.Errorf("a hash has %d bytes", len(stored))
	}
	copy(into[:], stored)
	return nil
}

const deviceQuery = "SELECT document::text, attributes FROM projection.devices WHERE system_id = $1"

func scanDevice(rows pgx.Rows) (*domain.Device, error) {
	var document string
	var attributes *string
	if err := rows.Scan(&document, &attributes); err != nil {
		return nil, err
	}
	return readDevice(document, attributes)
}

const connectionQuery = "SELECT document::text FROM projection.connections WHERE system_id = $1"

func scanConnection(rows pgx.Rows) (*domain.Connection, error) {
	var document string
	if err := rows.Scan(&document); err != nil {
		return nil, err
	}
	return readConnection(document)
}

// listRows runs a query as the actor and decodes each row.
func listRows[T any](
	ctx context.Context, s *Store, actor domain.Actor, scan func(pgx.Rows) (*T, error), query string, args ...any,
) ([]*T, error) {
	var found []*T
	err := s.read(ctx, scopeOf(actor), func(rows pgx.Rows) error {
		row, err := scan(rows)
		if err == nil {
			found = append(found, row)
		}
		return err
	}, query, args...)
	return found, readError("read rows", err)
}

// single returns the first row, or the error that there is none.
func single[T any](found []*T, err error, code domain.Code, what, id string) (*T, error) {
	if err == nil && len(found) == 0 {
		err = domain.Fail(domain.KindNotFound, code, "there is no "+what+" "+strconv.Quote(id))
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}
