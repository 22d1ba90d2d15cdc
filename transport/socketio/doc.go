// Package socketio is the Socket.IO face of the rooms, for unmodified
// socket.io-client 4.x. The protocol is in the packages below it: engineio, packet
// and sio.
//
// # Going on where one was
//
// The client has a part for this, connection state recovery: it keeps the pid that
// it was given and the last argument of the last event, if that is a string, and
// shows both when it comes back. Here the last argument is a place in the log, so
// what a client missed is read from there, whatever happened to the process that
// served it.
//
// A [Session] says which rooms the client of a pid is in and where it entered
// them. It is kept in a [Sessions] store, written when a room is joined and before
// the client hears of it: so a client that never got an event goes on where it
// joined. Nothing is written while events flow.
//
// For a client that joined one room once, which is nearly every one, the place is
// the event's position. Otherwise that says too little, and the place is an
// [offset]: the position, and behind it the revision (how often this session joined or
// left) and where the client is in each other room.
package socketio
