// Package ws serves the native protocol: JSON frames over WebSocket, with Melody. It
// authenticates sockets, translates their frames for the sessions of package client, and
// queues the frames of package rooms.
//
// # The use of Melody
//
// Melody upgrades requests, runs a reading and a writing goroutine per socket, and sends
// pings. Its broadcast is not used, because it visits every session and silently drops
// messages that do not fit a session's buffer. Instead every socket has a queue of its own,
// and gives Melody one frame at a time; the next follows when HandleSentMessage reports that
// the frame was written. So Melody's buffer never overflows, and frames are sent in the
// order of the queue. The first frame is queued in HandleConnect, before Melody's writing
// goroutine runs.
//
// Package handoff replaces two behaviours of Melody. Melody reads a socket in the goroutine
// of the HTTP request, which would keep the request's buffers in memory as long as the
// socket. And it closes a connection directly after the close frame, which can destroy that
// frame on its way.
//
// # Memory
//
// A socket costs its two goroutines, a read buffer of 512 bytes and, per joined system, a
// subscription and at most one frame, which it shares with the sockets at the same place.
// Its queue is bounded: answers by number and size, events by one frame per joined system. A
// client that stops reading costs no more until it is closed after [Config.PongWait].
//
// # Locks
//
// A socket's lock guards its queue, and the state that decides whether a frame may enter the
// queue. It is taken under the locks of the socket's session, see package client, and no
// lock is taken under it.
package ws
