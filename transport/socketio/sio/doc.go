// Package sio serves version 5 of the Socket.IO protocol over Engine.IO: namespaces, events
// and acknowledgements. It does not interpret the events.
//
// A client connects to a [Namespace] by name. The namespace checks the client's auth and
// accepts it, and from then on a [Handler] handles the client's events. The packets of one
// connection are handled one after the other.
package sio
