// Package cloud connects to the Shelly Cloud: it keeps one real-time socket per
// account open, fetches the state of all devices after every connect, and appends
// the changes to the log.
//
// A [Supervisor] runs in each process. For each connection of the partitions that the
// process owns, a worker goroutine runs one session after the other, so a connection
// never has two sockets. A session lasts as long as its credential: it renews the
// token, opens one socket after the other, and keeps the devices' state in between.
//
// On each new socket a session first holds back the events that arrive, fetches
// /device/all_status, and then applies the held events on top of it. The vendor
// neither numbers nor repeats events (RTE), so only this order loses none. A dropped
// socket is news about the connection, and none about the devices behind it.
//
// Sources in the comments: RTE is the vendor's page on real-time events, US its
// sample client, INT its Integrator API, and "measured" what others observed.
package cloud
