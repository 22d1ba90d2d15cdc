package ws

import (
	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
)

// CloseRule is a code with which this server closes sockets.
type CloseRule struct {
	Code      int
	Reason    string // sent with the code
	Reconnect string // the rule for the client
}

// All close codes of this server, and their rules for the client.
var (
	closeTooBig = CloseRule{websocket.CloseMessageTooBig, "a frame is over the limit",
		"fix the client; after a reconnect the same frame fails again"}
	closeRestart = CloseRule{websocket.CloseServiceRestart, "restarting",
		"reconnect after a random pause and resume"}
	closeBadFrame = CloseRule{4400, "bad frame",
		"fix the client; after a reconnect the same frame fails again"}
	closeToken = CloseRule{4401, "token missing, invalid or expired",
		"get a fresh token, then reconnect and resume"}
	closeForbidden = CloseRule{4403, "forbidden",
		"do not reconnect with this token"}
	closeNoJoin = CloseRule{4408, "no join in time",
		"reconnect when there is something to join"}
	closeForced = CloseRule{4409, "thrown out",
		"do not reconnect unless forced-disconnect said so"}
	closeFlood = CloseRule{4429, "too many requests",
		"reconnect after a minute at least, and send less"}
)

// The codes of error frames that only this face uses. Others come from sessions in package
// client and from the packages named there.
const (
	CodeBadFrame     domain.Code = "bad-frame"     // the socket is closed with 4400
	CodeUnknownEvent domain.Code = "unknown-event" // clients cannot send this event
	CodeInvalidFrame domain.Code = "invalid-frame" // the event is known, but its data is invalid
)

// closeFor returns the close rule for a refused credential.
func closeFor(err *domain.Error) CloseRule {
	switch err.Kind {
	case domain.KindForbidden:
		return closeForbidden
	case domain.KindUnavailable, domain.KindInternal:
		return closeRestart // the credential may be valid, so the client should retry
	case domain.KindLimited:
		return closeFlood
	default:
		return closeToken
	}
}
