// Package client is the protocol-independent part of a client's socket. It joins and
// leaves rooms, renews the token, watches the admin dashboard, applies limits, bans and
// commands, lists the socket, and ends it when its token expires.
//
// A [Session] represents one socket. A face creates it for each connection and passes
// the client's requests to it; the session calls [Face] and [Room] to write to the
// client. So a face knows the encoding of its protocol, its close codes and the form of
// its answers, and nothing of permissions, bans and limits. A [Server] holds the
// sessions of one face.
//
// # The order that a client sees
//
// A client learns of changes in the order in which they take effect, including changes
// that it did not request:
//
//   - The answer to a join precedes everything of that room: the snapshot, then the
//     events. Nothing of an earlier membership of the room follows it.
//   - Nothing of a room follows the answer to leaving it, or the notice that the client
//     was taken out of it. The same holds for the admin dashboard.
//   - The answer to a renewed token precedes the notices of the rooms that the new token
//     does not allow, and nothing of those rooms follows it.
//   - A command that takes a client out of a room while it joins takes effect after the
//     join: the client learns that it joined, and then that it left.
//   - If the token expires or a command disconnects the socket during a join, the session
//     ends: the join is undone and gets no answer.
//
// # Saved sessions
//
// A face whose clients can resume implements [Saver]. It saves each change before the
// change takes effect, and if the save fails, nothing changes. There is one exception: a
// client that must leave a room. If that save fails, the session aborts the connection,
// and the server checks the client's rights again when it reconnects. A command that takes
// a client out of a room stops the room's events at once. It waits for a change that is in
// progress, and then saves the client without that room.
//
// # Concurrency
//
// The requests of one client come one after the other. [Server.Disconnect], the clock,
// the metrics feed and the end of a connection come at any time, from any goroutine. A
// session has four locks, taken in this order:
//
//   - changing is held by a change of a Saver's session from its check to its effect,
//     including the save. It is the only lock that is held across I/O, and the wait for it
//     is bounded.
//   - order is held while a change takes effect and the client is told. The methods of
//     Face and Room that tell the client are called under it: they queue and return.
//     Memberships and the metrics feed are left under it as well, which never waits.
//   - publishing is held while the registry is updated.
//   - mu guards the session's state. No other code is called under it.
//
// Events do not pass through a session. Rooms deliver them to the face's [Room], which
// has a lock of its own, and [Room.Silence] stops them there. So a delivery takes no lock
// of this package.
//
// # Panics
//
// A panic in a face, a registry, a feed or a store leaves no lock held and no membership
// behind: an unfinished join is undone. The face recovers panics of its own goroutines and
// closes the connection. This package recovers panics of its goroutines and aborts the
// connection.
package client
