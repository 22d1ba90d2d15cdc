// Package shelly has the state of a Shelly device, and the interfaces to the platform
// that packages outbound and cloud share.
//
// Devices of the second generation and later dial us (package outbound). We dial the
// Shelly Cloud, once per account (package cloud). Both decode messages into documents
// (package status) and give them to a [Device], which merges them, finds the changes and
// decides which are worth an event. Package simulator plays the other side of both.
//
// Comments name the sources of facts about the protocols: RPC is the vendor's page on
// the local RPC protocol, RTE the one on real-time events of the cloud, and "measured"
// what others observed on real devices.
package shelly
