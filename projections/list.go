package projections

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// Lists are pages in order of id: up to limit rows after an id, from the first
// for an empty one. Single reads fail with a [domain.Error] of
// [domain.KindNotFound].

// Devices returns a page of the system's devices.
func (s *Store) Devices(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.DeviceID, limit int) ([]*domain.Device, error) {
	return listRows(ctx, s, actor, scanDevice, deviceQuery+" AND device_id > $2 ORDER BY device_id LIMIT $3", system, after, pageSize(limit))
}

// Device returns one device, or fails with [domain.CodeUnknownDevice].
func (s *Store) Device(ctx context.Context, actor domain.Actor, system domain.SystemID, id domain.DeviceID) (*domain.Device, error) {
	found, err := listRows(ctx, s, actor, scanDevice, deviceQuery+" AND device_id = $2", system, id)
	return single(found, err, domain.CodeUnknownDevice, "device", string(id))
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

// Equipment returns a page of the system's equipment, also what is retired.
func (s *Store) Equipment(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.EquipmentID, limit int) ([]*domain.Equipment, error) {
	return listRows(ctx, s, actor, scanEquipment, equipmentQuery+" AND equipment_id > $2 ORDER BY equipment_id LIMIT $3",
		system, after, pageSize(limit))
}

// EquipmentByID returns one piece of equipment, or fails with
// [domain.CodeUnknownEquipment].
func (s *Store) EquipmentByID(ctx context.Context, actor domain.Actor, system domain.SystemID, id domain.EquipmentID) (*domain.Equipment, error) {
	found, err := listRows(ctx, s, actor, scanEquipment, equipmentQuery+" AND equipment_id = $2", system, id)
	return single(found, err, domain.CodeUnknownEquipment, "equipment", string(id))
}

const equipmentQuery = "SELECT document::text, attributes FROM projection.equipment WHERE system_id = $1"

func scanEquipment(rows pgx.Rows) (*domain.Equipment, error) {
	var document string
	var attributes *string
	if err := rows.Scan(&document, &attributes); err != nil {
		return nil, err
	}
	return readEquipment(document, attributes)
}

// Assignments returns a page of the system's assignments, in order of device.
func (s *Store) Assignments(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.DeviceID, limit int) ([]*domain.Assignment, error) {
	return listRows(ctx, s, actor, scanAssignment, assignmentQuery+" AND device_id > $2 ORDER BY device_id LIMIT $3",
		system, after, pageSize(limit))
}

// Assignment returns what a device is assigned to, or fails with
// [domain.CodeNotAssigned].
func (s *Store) Assignment(ctx context.Context, actor domain.Actor, system domain.SystemID, device domain.DeviceID) (*domain.Assignment, error) {
	found, err := listRows(ctx, s, actor, scanAssignment, assignmentQuery+" AND device_id = $2", system, device)
	return single(found, err, domain.CodeNotAssigned, "assignment of device", string(device))
}

const assignmentQuery = `SELECT device_id, equipment_id, assigned_by, assigned_at, position_ms, position_seq
  FROM projection.assignments WHERE system_id = $1`

func scanAssignment(rows pgx.Rows) (*domain.Assignment, error) {
	var a domain.Assignment
	var at place
	if err := rows.Scan(&a.DeviceID, &a.EquipmentID, &a.AssignedBy, &a.AssignedAt, &at.ms, &at.n); err != nil {
		return nil, err
	}
	a.AssignedAt, a.Position = a.AssignedAt.UTC(), at.position()
	return &a, nil
}

// Connections returns a page of the system's connections.
func (s *Store) Connections(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.ConnectionID, limit int) ([]*domain.Connection, error) {
	return listRows(ctx, s, actor, scanConnection, connectionQuery+" AND connection_id > $2 ORDER BY connection_id LIMIT $3",
		system, after, pageSize(limit))
}

// Connection returns one connection, or fails with
// [domain.CodeUnknownConnection].
func (s *Store) Connection(ctx context.Context, actor domain.Actor, system domain.SystemID, id domain.ConnectionID) (*domain.Connection, error) {
	found, err := listRows(ctx, s, actor, scanConnection, connectionQuery+" AND connection_id = $2", system, id)
	return single(found, err, domain.CodeUnknownConnection, "connection", string(id))
}

const connectionQuery = "SELECT document::text FROM projection.connections WHERE system_id = $1"

func scanConnection(rows pgx.Rows) (*domain.Connection, error) {
	var document string
	if err := rows.Scan(&document); err != nil {
		return nil, err
	}
	return readConnection(document)
}

// SystemOfConnection returns the system that a connection belongs to, among
// those that the actor sees. It fails with [domain.CodeUnknownConnection] when
// there is none, and as a conflict when several systems have one of that id.
func (s *Store) SystemOfConnection(ctx context.Context, actor domain.Actor, id domain.ConnectionID) (domain.SystemID, error) {
	found, err := listRows(ctx, s, actor, func(rows pgx.Rows) (*domain.SystemID, error) {
		var system domain.SystemID
		return &system, rows.Scan(&system)
	}, "SELECT system_id FROM projection.connections WHERE connection_id = $1 LIMIT 2", id)
	if len(found) > 1 {
		return "", domain.Fail(domain.KindConflict, domain.CodeConnectionExists,
			"several systems have a connection "+strconv.Quote(string(id))+": name the system")
	}
	system, err := single(found, err, domain.CodeUnknownConnection, "connection", string(id))
	if err != nil {
		return "", err
	}
	return *system, nil
}

// System says where a system's history stands.
type System struct {
	SystemID  domain.SystemID
	Partition int
	Head      domain.Cursor
	Hash      domain.Hash // of the newest event: the head of the chain
}

// Systems returns a page of the systems that have history, among those that the
// actor sees.
func (s *Store) Systems(ctx context.Context, actor domain.Actor, after domain.SystemID, limit int) ([]*System, error) {
	return listRows(ctx, s, actor, scanSystem, systemQuery+" WHERE system_id > $1 ORDER BY system_id LIMIT $2", after, pageSize(limit))
}

// ChainHead returns where the system's hash chain stands; zero before its first
// event.
func (s *Store) ChainHead(ctx context.Context, actor domain.Actor, system domain.SystemID) (*System, error) {
	found, err := listRows(ctx, s, actor, scanSystem, systemQuery+" WHERE system_id = $1", system)
	if err != nil || len(found) == 0 {
		return &System{SystemID: system, Partition: s.partition(system)}, err
	}
	return found[0], nil
}

const systemQuery = "SELECT system_id, partition, position_ms, position_seq, seq, hash FROM heads"

func scanSystem(rows pgx.Rows) (*System, error) {
	var system System
	var at place
	var seq int64
	var hash []byte
	if err := rows.Scan(&system.SystemID, &system.Partition, &at.ms, &at.n, &seq, &hash); err != nil {
		return nil, err
	}
	system.Head = domain.Cursor{Position: at.position(), Seq: uint64(seq)}
	return &system, hashFrom(hash, &system.Hash)
}

// hashFrom reads a hash as Postgres has it.
func hashFrom(stored []byte, into *domain.Hash) error {
	if len(stored) != len(into) {
		return fmt.Errorf("a hash has %d bytes", len(stored))
	}
	copy(into[:], stored)
	return nil
}

// listRows runs a query as the actor and reads each row.
func listRows[T any](ctx context.Context, s *Store, actor domain.Actor, scan func(pgx.Rows) (*T, error), query string, args ...any) ([]*T, error) {
	var found []*T
	err := s.read(ctx, scopeOf(actor), func(rows pgx.Rows) error {
		row, err := scan(rows)
		found = append(found, row)
		return err
	}, query, args...)
	return found, readError("read rows", err)
}

// single is the one row there is, or the error that there is none.
func single[T any](found []*T, err error, code domain.Code, what, id string) (*T, error) {
	if err == nil && len(found) == 0 {
		err = domain.Fail(domain.KindNotFound, code, "there is no "+what+" "+strconv.Quote(id))
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}
