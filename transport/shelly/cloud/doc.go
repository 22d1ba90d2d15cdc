// Package cloud dials the Shelly Cloud: one actor per credential holds the
// account's real-time socket, fetches the state of all devices on every
// connection, and turns what it hears into events.
//
// An actor begins with a socket, keeps back what comes on it, fetches
// /device/all_status, and replays what it kept over that: the vendor neither
// numbers nor repeats events (RTE), so this is the one order in which nothing can
// fall between. A dropped socket says something of the connection and nothing of
// the devices behind it.
//
// A [Runner] has the actors of the partitions that a process owns. There are never
// two actors for a connection: one goroutine per connection runs them, one after
// the other.
//
// Sources in the comments: RTE is the vendor's page on real-time events, US its
// sample client, INT its Integrator API, and "measured" what others saw.
package cloud
