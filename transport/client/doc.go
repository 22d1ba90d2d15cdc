// Package client is the life of a client's socket, whatever protocol it speaks: it
// joins and leaves rooms, renews its token, watches the admin dashboard, is listed,
// counted, banned, taken out of rooms and thrown out by commands, and ends when its
// token does.
//
// A [Session] is that life. A face makes one for each connection, hands it the
// requests that it has read, and is told through [Face] and [Room] what to write. So
// a face keeps the encoding of its protocol, its close codes and the shapes of its
// acknowledgements, and knows nothing of rights, bans and limits. A [Server] holds the
// sessions of one face.
//
// # What a client sees, in which order
//
// A client hears of changes in the order in which they take effect, also of those that
// it did not ask for:
//
//   - The answer to a join comes before everything of that room: the snapshot, then
//     events. Nothing of a former membership of the room comes behind it.
//   - Nothing of a room comes behind the answer to leaving it, or behind the notice that
//     the client was taken out of it. The same holds for the admin dashboard.
//   - The answer to a renewed token comes before the notices of the rooms that it is
//     not for, and nothing of those rooms comes behind it.
//   - A command that takes a client out of a room which it is just entering takes effect
//     behind the join: the client hears that it joined, and then that it left.
//   - A token that expires, or a socket that is thrown out, in the middle of a join ends
//     the session: the join is undone and gets no answer.
//
// # Changes that are saved
//
// A face whose clients come back to where they were is a [Keeper]: it saves each change
// before it takes effect. What cannot be saved changes nothing, with one exception: a
// client that may not stay in a room is cut off, and checked again when it comes back.
// A command silences the room at once, and takes it out of what is saved behind the
// change that is under way.
//
// # Concurrency
//
// Requests of one client come one after the other; [Server.Disconnect], the clock, the
// metrics feed and the end of a connection come at any time, from any goroutine. A
// session has four locks, taken in this order:
//
//   - changing is held by a change of a Keeper's session from its check to its effect,
//     across the saving. It is the only one that is held across I/O, and those who wait
//     for it do so for a bounded time.
//   - order is held while a change takes effect and the client is told of it. The calls
//     of Face and Room that say so are made under it: they queue and return. Memberships
//     and the metrics feed are left under it as well, which waits for nobody.
//   - publishing is held while the registry is told.
//   - mu guards the session's state. Nothing is called under it.
//
// Events do not pass through a session: rooms deliver them to the face's [Room], which
// has a lock of its own, and [Room.Silence] stops them there. So delivery takes no lock
// of this package.
//
// # Panics
//
// A panic in a face, in a registry, a feed or a store leaves no lock held and no
// membership behind: what was being entered is left again. The face's own guard closes
// the connection. What runs in goroutines of this package is guarded here, and cuts
// the session off.
package client
