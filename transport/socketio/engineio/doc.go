// Package engineio serves version 4 of the Engine.IO protocol: sessions that carry messages
// over HTTP long polling, over WebSocket (with Melody), or first over polling until a
// WebSocket is ready. It does not interpret the messages.
//
// It follows the written specification (engine.io-protocol, revision 4) and, where that is
// silent, the behaviour of the Node server. Package conformance tests both against this
// package.
//
// # A session
//
// A [Session] begins with a handshake, has one carrier at a time, and ends once. Sent
// messages wait in its queue: a GET takes all of them, a WebSocket takes one packet after
// the other. Melody has only one packet at a time, so its buffer never overflows. The
// connection below holds packets back while another follows, so a batch is one write to the
// network.
//
// # Locks
//
// The server's lock guards the list of sessions, a session's lock its queue and its carrier.
// They are never held together, and neither is held while a [Handler], a [Receipt] or Melody
// is called. A session's order is held while its handler works, so that messages of a POST
// and of a WebSocket do not mix.
package engineio
