// Package simulator plays the other side of Shelly: plugs that dial in, and the
// Shelly Cloud. It is for demos, load and tests, and speaks the real protocols
// over real sockets, with the oddities that were measured on real devices.
package simulator
