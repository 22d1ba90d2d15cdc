// Package ws is the native protocol: JSON frames over WebSocket, on Melody. It
// authenticates sockets, translates their frames for the sessions of package client,
// and queues what package rooms delivers.
//
// # What Melody does here, and what it does not
//
// Melody upgrades, runs a reading and a writing goroutine per socket, and keeps
// pings going. Its broadcast is not used: it looks at every session, and drops
// what does not fit a session's buffer without a word. Instead every socket has
// a queue of its own, of which one frame at a time is with Melody; the next
// follows when HandleSentMessage says that the frame is out. So Melody's buffer
// never overflows, and what a socket sends is in the order of its queue from the
// very first frame, which is queued in HandleConnect, before Melody's writing
// goroutine runs.
//
// Two things of Melody are replaced underneath, in package handoff: it reads a socket
// in the goroutine of the HTTP request, which would keep the request's buffers
// alive for as long as the socket; and it closes a connection right behind the
// close frame, which can destroy that frame on its way.
//
// # Memory
//
// A socket costs its two goroutines, a read buffer of 512 bytes, and per system
// that it joined a cursor and at most one frame, shared with the others at the
// same place. Frames in its queue are bounded: answers by number and size, events
// by one frame per joined system. A reader that stops reading costs just that
// until it is taken for dead after [Config.PongWait].
//
// # Locks
//
// A socket's lock guards its queue, and what decides whether a frame may get into it.
// It is taken under the locks of the socket's session, see package client, and no lock is
// taken under it.
package ws
