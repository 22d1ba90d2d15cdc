// Package conformance tests an Engine.IO 4 and Socket.IO 5 server from outside,
// over real connections, and has small clients and attackers for other tests.
//
// The server under test is wired like this:
//
//   - /engine.io/ is bare Engine.IO: each message goes back as it came.
//   - /socket.io/ has the namespaces "/" and "/custom", which emit "auth" with the
//     CONNECT's payload ({} if there was none), answer "message" with
//     "message-back" and the same arguments, acknowledge "message-with-ack" with
//     its arguments, and answer "ask" with a "question" of the same arguments
//     which asks for an acknowledgement, whose arguments "answered" brings back.
//   - The client's own connection state recovery is off.
//
// The expectations come from the two protocol documents (revisions 4 and 5). This
// package's own test holds them against the Socket.IO project's server, so an
// expectation that server does not meet is wrong, or stands in a check that says
// why plugcast is stricter.
package conformance

import "time"

// Settings are what the server under test is to be started with.
type Settings struct {
	PingInterval   time.Duration // from a pong, or the opening, to the server's next ping
	PingTimeout    time.Duration // from a ping until a client without a pong is given up
	UpgradeTimeout time.Duration // from a probing WebSocket's arrival until it is given up
	ConnectTimeout time.Duration // until a client in no namespace is given up
	MaxPayload     int           // bytes of a request's body, or of a WebSocket message
	Origin         string        // the one browser origin that may use the server
}

// allowed is the origin of the dashboard which may use the server.
const allowed = "http://dashboard.example"

// Brisk are the settings of the checks that are about timers, and those which the
// protocol's public suites expect.
func Brisk() Settings {
	return Settings{
		PingInterval: 300 * time.Millisecond, PingTimeout: 200 * time.Millisecond,
		UpgradeTimeout: time.Second, ConnectTimeout: time.Second,
		MaxPayload: 1_000_000, Origin: allowed,
	}
}

// Patient are the settings of all other checks: no timer of the server ends before
// theirs do, however busy the machine is.
func Patient() Settings {
	return Settings{
		PingInterval: 5 * time.Minute, PingTimeout: 5 * time.Minute,
		UpgradeTimeout: 5 * time.Minute, ConnectTimeout: 5 * time.Minute,
		MaxPayload: 1_000_000, Origin: allowed,
	}
}
