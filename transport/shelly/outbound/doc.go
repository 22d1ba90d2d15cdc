// Package outbound is the server that Shelly devices of the second generation and later
// dial: their "outbound WebSocket" (Ws). It uses Melody.
//
// The protocol has no authentication, and a device chooses its own name
// (Authentication). So the key in the URL is the identity. It belongs to one connection
// of one system, and a device's name counts only within that system.
//
// Each socket has a session with its own goroutine, which owns the device's state and
// appends its changes in order. A session reads a few frames ahead. When the log is
// slow, it stops reading, and the device's own buffers fill.
//
// Most limits are those of the vendor's own server of this kind ("measured" in its public
// source): see [Config].
package outbound
