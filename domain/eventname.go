package domain

import (
	"errors"
	"slices"
)

const maxEventType = 128

// frameNames are the names that the faces and their clients give to frames which
// are no events, in alphabetical order. On a socket an event stands beside them
// under its own name. An event with one of these names would pass for a word of
// the server: it could end a client's socket, or give it a snapshot of another
// system whose room it is in as well.
var frameNames = []string{
	"authenticate", "authenticated", "connect", "connect_error", "connection-status", "disconnect", "disconnecting", "error",
	"forced-disconnect", "heartbeat", "join-admin-dashboard", "join-system", "joined", "leave-admin-dashboard", "leave-system", "left",
	"message", "metrics", "newListener", "open", "ping", "pong", "removeListener", "replay-control", "replay-ended", "reset", "restarted",
	"snapshot", "state", "status",
}

// check returns an error that says why t cannot be the type of an event, known
// here or not.
func (t EventType) check() error {
	if _, known := kinds[t]; known {
		return nil
	}
	if !isID(string(t), maxEventType, true) {
		return errors.New("must be 1 to 128 characters of A-Z a-z 0-9 . _ : -, not " + quote(string(t)))
	}
	if _, taken := slices.BinarySearch(frameNames, string(t)); taken {
		return errors.New(quote(string(t)) + " is the name of a frame that is no event")
	}
	return nil
}
