package main

import (
	"context"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams/ban"
	"github.com/plugcast/plugcast/streams/presence"
	"github.com/plugcast/plugcast/streams/timeline"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// The adapters of this file turn what the stores offer into what the faces ask
// for, where the two differ in types or in words.

// restReads is [rest.Reads] on the database.
type restReads struct{ *projections.Store }

// Head implements rest.Reads.
func (r restReads) Head(ctx context.Context, actor domain.Actor, system domain.SystemID) (domain.Cursor, domain.Hash, error) {
	head, err := r.ChainHead(ctx, actor, system)
	if err != nil {
		return domain.Cursor{}, domain.Hash{}, err
	}
	return head.Head, head.Hash, nil
}

// restSockets is [rest.Sockets] on the board of all nodes.
type restSockets struct{ registry *presence.Registry }

// Page implements rest.Sockets.
func (s restSockets) Page(ctx context.Context, systems []domain.SystemID, after string, limit int) ([]rest.Socket, string, error) {
	listed, next, err := s.registry.Page(ctx, systems, after, limit)
	if err != nil {
		return nil, "", err
	}
	sockets := make([]rest.Socket, len(listed))
	for i, one := range listed {
		sockets[i] = rest.Socket(one)
	}
	return sockets, next, nil
}

// Find implements rest.Sockets.
func (s restSockets) Find(ctx context.Context, id string) (rest.Socket, bool, error) {
	found, live, err := s.registry.Find(ctx, id)
	return rest.Socket(found), live, err
}

// roomRegistry puts the sockets of the faces on the board.
type roomRegistry struct{ registry *presence.Registry }

// Put implements rooms.Registry.
func (r roomRegistry) Put(s rooms.Socket) {
	r.registry.Put(presence.Socket{
		SocketID: s.SocketID, Face: s.Face, Subject: s.Subject, Role: s.Role, Systems: s.Systems, Remote: s.Remote,
		ConnectedAt: s.ConnectedAt,
	})
}

// Remove implements rooms.Registry.
func (r roomRegistry) Remove(socketID string) { r.registry.Remove(socketID) }

// roomBan is [rooms.Ban].
type roomBan struct{ bans *ban.List }

// Check implements rooms.Ban.
func (f roomBan) Check(actor domain.Actor, system domain.SystemID) (rooms.Banned, bool) {
	found, banned := f.bans.Check(actor, system)
	return rooms.Banned{Reason: found.Reason, CommandID: found.CommandID, Until: found.Until}, banned
}

// roomSource is [rooms.Source]: log and archive as one, and snapshots.
type roomSource struct {
	*timeline.Timeline
	snapshots *snapshot.Cache
}

// Snapshot implements rooms.Source.
func (s roomSource) Snapshot(ctx context.Context, system domain.SystemID) (*snapshot.Snapshot, error) {
	return s.snapshots.Get(ctx, system)
}

// snapshotSource is [snapshot.Source] on the database.
type snapshotSource struct{ *projections.Store }

// Head implements snapshot.Source.
func (s snapshotSource) Head(ctx context.Context, system domain.SystemID) (domain.Cursor, error) {
	_, head, err := s.Base(ctx, system)
	return head, err
}
