// Package simulator plays plugs that dial in, over the real protocol and real sockets,
// with the oddities that were measured on real devices. It is for demos, load and tests.
package simulator
