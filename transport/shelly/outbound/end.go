package outbound

import "fmt"

// closeFrame is the close frame that a device gets. Devices dial again after every code; the
// code and reason are for people who read the device's log.
type closeFrame struct {
	code   int
	reason string // at most 123 bytes, without anything secret
}

// The close frames. The codes are those of the vendor's own server where it has one
// (measured): 1008 for a violation, 1013 for "try again later".
var (
	closeDropped   = closeFrame{1001, "disconnected by command"}
	closeStopped   = closeFrame{1001, "the connection is stopped"}
	closeReplaced  = closeFrame{1001, "a newer socket of this device took over"}
	closeRestart   = closeFrame{1012, "the server restarts"}
	closeBadFrame  = closeFrame{1008, "a frame that no device sends"}
	closeChanged   = closeFrame{1008, "src changed"}
	closeFlood     = closeFrame{1008, "too many messages"}
	closeNotInTime = closeFrame{1013, "no status in time"}
	closeTooMany   = closeFrame{1013, "too many devices on this connection"}
	closeLater     = closeFrame{1013, "try again later"}
)

func closeCooldown(seconds int) closeFrame {
	return closeFrame{1013, fmt.Sprintf("try again in %d s", seconds)}
}

// endReason is why a socket ended. It decides how long the device still counts as alive.
type endReason int

const (
	endClosed   endReason = iota // silent unless it is back within the grace
	endTimedOut                  // silent now: it answered no ping
	endStopped                   // not watched: its connection was stopped
	endRestart                   // it has the full time to come back: we close the socket
	endReplaced                  // another socket has the device
)
