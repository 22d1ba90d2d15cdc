// Package shelly is what the two ways in for Shelly devices have in common: the
// state of a device as its holder keeps it, and what they ask of the platform.
//
// Devices of the second generation and later dial us (package outbound); the
// Shelly Cloud is dialled by us, once per account (package cloud). Both turn what
// they hear into documents (package status) and hand them to a [Device], which
// merges them, works out what changed and says what is worth an event. Package
// simulator plays the other side of both.
//
// Facts about the protocols carry their source in the comments: RPC is the
// vendor's page on the local RPC protocol, RTE the one on real-time events of the
// cloud, and "measured" what others saw on real devices.
package shelly
