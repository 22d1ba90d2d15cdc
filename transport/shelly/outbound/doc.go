// Package outbound is the server that Shelly devices of the second generation and
// later dial into: their "outbound WebSocket" (Ws). It is built on Melody.
//
// That channel has no authentication of its own, and a device calls itself what
// it likes (Authentication). So the key in the URL is the identity: it belongs to
// one connection of one system, and a device that calls itself what another
// system's device is called is refused.
//
// Each socket is a session with a goroutine of its own, which owns the device's
// state and appends what changed of it, in order. A session reads ahead by a few
// frames; when the log is slow, the socket is read no further, and the device's
// own buffers fill.
//
// Limits follow what the vendor's own server of this kind has ("measured" on its
// public source): see [Config].
package outbound
