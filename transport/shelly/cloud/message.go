package cloud

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// message is a frame from the socket: one of the types below.
type message interface{ isMessage() }

// notice is the cloud's news of a device: its status, whether the cloud reaches it, or
// its name from its settings (INT).
type notice struct {
	device wireID
	gen    string // "G1", "G2" (also later hardware), "GBLE", "V1", or ""
	name   string // or ""
	// status is the status or a part of it; nil when the notice is of another kind. No
	// frame tells which of the two it is, and both occur (measured): it is merged.
	status status.Document
	online domain.Optional[bool] // absent when the notice is of another kind
}

// response answers a request of ours: a CommandResponse or a JrpcResponse.
type response struct {
	transactionID string
	answered      bool // it tells how the request ended
	ok            bool
	err           string // the vendor's word, such as WRONG_ID; "" when ok
}

// socketError is an error of the socket itself.
type socketError struct{ text string }

// ignored is an event that we do not use. Clients must ignore unknown ones (RTE).
type ignored struct{ event string }

func (notice) isMessage()      {}
func (response) isMessage()    {}
func (socketError) isMessage() {}
func (ignored) isMessage()     {}

// maxWords bounds a text of the vendor's, in bytes.
const maxWords = 200

// decode decodes a frame of the real-time socket, in both shapes: with a device object
// (RTE) and with a top-level deviceId (INT). It fails for frames that the vendor does
// not send: no JSON object, no event, no readable device.
func decode(raw []byte) (message, error) {
	frame, err := status.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("cloud: decode frame: %w", err)
	}
	event, ok := frame["event"].(string)
	if !ok {
		return nil, errors.New("cloud: decode frame: it has no event")
	}
	m, err := decodeEvent(event, frame)
	if err != nil {
		return nil, fmt.Errorf("cloud: decode %.40q: %w", event, err)
	}
	return m, nil
}

func decodeEvent(event string, frame status.Document) (message, error) {
	switch event {
	case "Shelly:StatusOnChange", "Shelly:Online", "Shelly:Settings":
		return decodeNotice(event, frame)
	case "Shelly:CommandResponse":
		return decodeCommandResponse(frame)
	case "Shelly:JrpcResponse":
		return decodeJrpcResponse(frame)
	case "Error":
		return socketError{words(frame["message"])}, nil
	}
	return ignored{short(event)}, nil
}

func decodeNotice(event string, frame status.Document) (message, error) {
	var n notice
	id := frame["deviceId"]
	if device, ok := frame["device"].(map[string]any); ok {
		id = device["id"]
		n.gen, _ = device["gen"].(string)
	}
	var err error
	if n.device, err = socketID(id); err != nil {
		return nil, err
	}
	switch event {
	case "Shelly:StatusOnChange":
		n.name = metadataName(frame)
		n.status, err = document(frame, "status")
	case "Shelly:Online":
		online, ok := flag(frame["online"])
		if !ok {
			return nil, errors.New("online is neither 0 nor 1")
		}
		n.online = domain.Some(online)
	default:
		var settings status.Document
		settings, err = document(frame, "settings")
		n.name = settingsName(settings)
	}
	return n, err
}

// document returns a member that must be an object. The cloud writes an empty one as an
// empty list (measured).
func document(frame status.Document, member string) (status.Document, error) {
	switch v := frame[member].(type) {
	case map[string]any:
		return v, nil
	case []any:
		if len(v) == 0 {
			return status.Document{}, nil
		}
	}
	return nil, fmt.Errorf("%s is not an object", member)
}

func metadataName(frame status.Document) string {
	list, _ := frame["metadata"].([]any)
	if len(list) == 0 {
		return ""
	}
	first, _ := list[0].(map[string]any)
	name, _ := first["name"].(string)
	return short(name)
}

// settingsName returns the name that the owner gave the device, or "".
func settingsName(settings status.Document) string {
	sys, _ := settings["sys"].(map[string]any)
	device, _ := sys["device"].(map[string]any)
	first, _ := settings["switch:0"].(map[string]any)
	for _, v := range []any{device["name"], settings["name"], first["name"]} {
		if name, ok := v.(string); ok && name != "" {
			return short(name)
		}
	}
	return ""
}

func decodeCommandResponse(frame status.Document) (message, error) {
	id, err := transactionID(frame["trid"])
	if err != nil {
		return nil, err
	}
	data, _ := frame["data"].(map[string]any)
	ok, answered := data["isok"].(bool)
	r := response{transactionID: id, answered: answered, ok: ok}
	if !ok {
		// No documentation says which member has the error word; res was seen.
		for _, member := range []string{"res", "error", "errors", "message"} {
			if r.err = words(data[member]); r.err != "" {
				r.answered = true
				break
			}
		}
	}
	return r, nil
}

func decodeJrpcResponse(frame status.Document) (message, error) {
	id, err := transactionID(frame["trid"])
	if err != nil {
		return nil, err
	}
	r := response{transactionID: id}
	body, _ := frame["response"].(map[string]any)
	_, hasResult := body["result"]
	failure, hasError := body["error"]
	if r.answered = hasResult != hasError; !r.answered {
		return r, nil // it must have exactly one of the two (US)
	}
	if r.ok = hasResult; !r.ok {
		if r.err = words(failure); r.err == "" {
			r.err = "an error without words"
		}
	}
	return r, nil
}

func transactionID(v any) (string, error) {
	switch v := v.(type) {
	case string:
		if v != "" && len(v) <= maxTextID {
			return v, nil
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return strconv.FormatInt(int64(v), 10), nil
		}
	}
	return "", errors.New("trid is missing or unreadable")
}

func flag(v any) (on, ok bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case float64:
		return v == 1, v == 0 || v == 1
	}
	return false, false
}
