// Package engineio serves version 4 of the Engine.IO protocol: sessions that carry
// messages over HTTP long polling, over WebSocket (on Melody), and over the first
// until the second is ready. It knows nothing of what the messages mean.
//
// Facts of the protocol come from its written specification (engine.io-protocol,
// revision 4) and, where that is silent, from what the Node server does; package
// conformance holds both against this one.
//
// # A session
//
// A [Session] begins with a handshake, has one carrier at a time, and ends once.
// What is sent waits in its queue: a GET takes all of it, a WebSocket takes packet
// after packet. Only one packet is with Melody, so its buffer never overflows; the
// connection below holds packets back while another follows, so a batch is one
// write to the network.
//
// # Locks
//
// The server's lock (which sessions there are) and a session's (its queue and its
// carrier) are never held together, and neither while a [Handler], a [Receipt] or
// Melody is called. A session's order is held while a handler works: it keeps what
// a POST brought and what a WebSocket brought apart.
package engineio
