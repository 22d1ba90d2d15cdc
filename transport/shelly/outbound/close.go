package outbound

import "fmt"

// closeRule is why a socket is closed, as its device is told. Devices dial again
// whatever the code; it is for whoever reads the device's log.
type closeRule struct {
	code   int
	reason string // at most 123 bytes, without anything secret
}

// The close codes are those of the vendor's own server where it has one
// (measured): 1008 for what a device must not do, 1013 for "try again later".
var (
	closeDropped   = closeRule{1001, "disconnected by command"}
	closeStopped   = closeRule{1001, "the connection is stopped"}
	closeReplaced  = closeRule{1001, "a newer socket of this device took over"}
	closeRestart   = closeRule{1012, "the server restarts"}
	closeBadFrame  = closeRule{1008, "a frame that no device sends"}
	closeChanged   = closeRule{1008, "src changed"}
	closeFlood     = closeRule{1008, "too many messages"}
	closeNotInTime = closeRule{1013, "no status in time"}
	closeTooMany   = closeRule{1013, "too many devices on this connection"}
	closeLater     = closeRule{1013, "try again later"}
)

func closeCooldown(seconds int) closeRule {
	return closeRule{1013, fmt.Sprintf("try again in %d s", seconds)}
}

// fate is what becomes of a device whose socket ends: who is told what.
type fate int

const (
	fateClosed   fate = iota // silent unless it comes back within the grace
	fateDead                 // silent now: it answered no ping
	fateForget               // nobody looks for it: we closed the socket
	fateRestart              // it has all the time there is to come back: we go
	fateReplaced             // somebody else has it
)
