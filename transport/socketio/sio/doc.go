// Package sio serves version 5 of the Socket.IO protocol over Engine.IO:
// namespaces, events and acknowledgements. It knows nothing of what events mean.
//
// A client connects to a [Namespace] by name, which looks at what the client shows
// and accepts it, and from then on its [Handler] takes the events. What one
// connection sends is handled one after the other.
package sio
