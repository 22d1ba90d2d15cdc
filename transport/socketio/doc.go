// Package socketio serves the rooms to unmodified socket.io-client 4.x applications. The
// packages engineio, packet and sio below it implement the protocol.
//
// # Resuming
//
// The client supports connection state recovery: it keeps the pid that the server gave it
// and the last argument of the last event, if that is a string, and sends both when it
// reconnects. Here the last argument is a place in the log, so the server reads the missed
// events from there, even if the process that served the client is gone.
//
// A [Session] contains the rooms of the client with a pid, and the places where it joined
// them. It is kept in a [Sessions] store, and written when the client joins a room, before
// the client gets the answer. So a client that never got an event resumes from the place
// where it joined. Nothing is written while events flow.
//
// For a client that joined one room once, as nearly every client does, the place is the
// event's position. Otherwise the place is an [offset]: the position, the revision (how
// often this session has joined or left) and the client's place in each other room.
package socketio
