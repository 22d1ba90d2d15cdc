package ws

import (
	"encoding/json"
	"fmt"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// The names of frames.
const (
	eventConnectionStatus = "connection-status"
	eventJoinSystem       = "join-system"
	eventJoined           = "joined"
	eventSnapshot         = "snapshot"
	eventLeaveSystem      = "leave-system"
	eventLeft             = "left"
	eventJoinAdmin        = "join-admin-dashboard"
	eventLeaveAdmin       = "leave-admin-dashboard"
	eventAuthenticate     = "authenticate"
	eventAuthenticated    = "authenticated"
	eventPing             = "ping"
	eventPong             = "pong"
	eventHeartbeat        = "heartbeat"
	eventForcedDisconnect = "forced-disconnect"
	eventError            = "error"
)

// request is a frame from a client.
type request struct {
	Event string
	ID    json.RawMessage // a number or a string, repeated in the answer; nil if missing
	Data  json.RawMessage
}

// parseRequest parses a frame. It fails if the message is not a JSON object with an event.
func parseRequest(message []byte) (request, error) {
	var r request
	if !domain.IsJSONObject(message) {
		return request{}, badFrame(message, "a frame is a JSON object")
	}
	if err := strictjson.Pick(message, strictjson.Member{Name: "event", Into: &r.Event}, strictjson.Member{Name: "id", Into: &r.ID},
		strictjson.Member{Name: "data", Into: &r.Data}); err != nil {
		return request{}, badFrame(message, "the event of a frame is a string, and each member is there once").WithCause(err)
	}
	if r.Event == "" {
		return request{}, domain.Invalid(CodeBadFrame, `a frame needs an "event"`)
	}
	return r, nil
}

// badFrame returns the error for a message that is not a frame: the error in its JSON,
// or else the definition of a frame.
func badFrame(message []byte, detail string) *domain.Error {
	if err := domain.CheckStorableJSON(message); err != nil {
		detail = "a frame is a JSON object, and this is not: " + err.Error()
	}
	return domain.Invalid(CodeBadFrame, detail)
}

const maxID = 128 // bytes of a request's id as JSON

// checkID removes a null id, and refuses an id that is neither a number nor a string.
func (r *request) checkID() error {
	if len(r.ID) == 0 || string(r.ID) == "null" {
		r.ID = nil
		return nil
	}
	if c := r.ID[0]; len(r.ID) > maxID || c != '"' && c != '-' && (c < '0' || c > '9') {
		r.ID = nil
		return domain.Invalid(CodeInvalidFrame, fmt.Sprintf("an id is a number or a string of at most %d bytes", maxID))
	}
	return nil
}

// encodeFrame encodes a frame to a client. data is a type of this package or a snapshot. If
// JSON cannot represent a value, such as a time after the year 9999, that counts as an
// internal error, and the client gets an error frame instead.
func encodeFrame(event string, id json.RawMessage, data any) []byte {
	b, err := domain.EncodeJSON(struct {
		Event string          `json:"event"`
		ID    json.RawMessage `json:"id,omitempty"`
		Data  any             `json:"data,omitempty"`
	}{event, id, data})
	if err != nil {
		isolate.Recovered(nil, where, err)
		return []byte(`{"event":"error","data":{"code":"internal","detail":"internal error; the server's log has the details"}}`)
	}
	return b
}

// errorFrame encodes an error with its parameters.
func errorFrame(id json.RawMessage, err *domain.Error) []byte {
	return encodeFrame(eventError, id, client.Problem(err))
}

type connectionStatus struct {
	Connected bool   `json:"connected"` // false if the credential was refused; then the socket is closed
	SocketID  string `json:"socketId"`
	Node      string `json:"node"`
	// Deployment identifies the log that the positions of this socket belong to.
	Deployment string `json:"deployment,omitempty"`
}

type inRoom struct {
	Room string `json:"room"`
}

type heartbeat struct {
	Time  string                            `json:"time"`
	Rooms map[domain.SystemID]domain.Cursor `json:"rooms"`
}
