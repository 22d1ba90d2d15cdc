package cloud

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/plugcast/plugcast/transport/shelly/status"
)

// Message is what came on the socket: one of the types below.
type Message interface{ message() }

// StatusOnChange says what is new of a device. Whether it is the whole status or a
// part of it is not said anywhere, and differs (measured): it is merged.
type StatusOnChange struct {
	Device WireID
	Gen    string // "G1", "G2" (also later hardware), "GBLE", "V1", or ""
	Name   string // or ""
	Status status.Document
}

// Online says whether the cloud reaches a device.
type Online struct {
	Device WireID
	Online bool
}

// Settings are a device's settings, or some of them (INT).
type Settings struct {
	Device   WireID
	Settings status.Document
}

// Response answers a request of ours: a CommandResponse or a JrpcResponse.
type Response struct {
	TransactionID string
	Answered      bool // it says how the request ended; otherwise nothing can be made of it
	OK            bool
	Error         string // the vendor's word, such as WRONG_ID; "" when OK
}

// Failure is an error of the socket itself.
type Failure struct{ Text string }

// Ignored is an event that means nothing to us: unknown ones are to be ignored
// (RTE).
type Ignored struct{ Event string }

func (StatusOnChange) message() {}
func (Online) message()         {}
func (Settings) message()       {}
func (Response) message()       {}
func (Failure) message()        {}
func (Ignored) message()        {}

// maxWords bounds what is kept of a text of the vendor's, in bytes.
const maxWords = 200

// Decode reads a frame of the real-time socket. Both shapes are read: with a device
// object (RTE) and with a top-level deviceId (INT). It fails for what is not a
// frame of the vendor's: no JSON object, no event, no readable device.
func Decode(raw []byte) (Message, error) {
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

func decodeEvent(event string, frame status.Document) (Message, error) {
	switch event {
	case "Shelly:StatusOnChange":
		id, gen, err := deviceOf(frame)
		if err != nil {
			return nil, err
		}
		doc, err := document(frame, "status")
		return StatusOnChange{Device: id, Gen: gen, Name: metadataName(frame), Status: doc}, err
	case "Shelly:Online":
		id, _, err := deviceOf(frame)
		if err != nil {
			return nil, err
		}
		online, ok := flag(frame["online"])
		if !ok {
			return nil, errors.New("online is neither 0 nor 1")
		}
		return Online{Device: id, Online: online}, nil
	case "Shelly:Settings":
		id, _, err := deviceOf(frame)
		if err != nil {
			return nil, err
		}
		doc, err := document(frame, "settings")
		return Settings{Device: id, Settings: doc}, err
	case "Shelly:CommandResponse":
		return decodeCommandResponse(frame)
	case "Shelly:JrpcResponse":
		return decodeJrpcResponse(frame)
	case "Error":
		return Failure{Text: words(frame["message"])}, nil
	}
	return Ignored{Event: short(event)}, nil
}

func deviceOf(frame status.Document) (id WireID, gen string, err error) {
	v := frame["deviceId"]
	if device, ok := frame["device"].(map[string]any); ok {
		v = device["id"]
		gen, _ = device["gen"].(string)
	}
	id, err = socketID(v)
	return id, gen, err
}

// document is a member that must be an object. The cloud writes an empty one as an
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

// name is what the owner called the device, or "".
func (s Settings) name() string {
	sys, _ := s.Settings["sys"].(map[string]any)
	device, _ := sys["device"].(map[string]any)
	first, _ := s.Settings["switch:0"].(map[string]any)
	for _, v := range []any{device["name"], s.Settings["name"], first["name"]} {
		if name, ok := v.(string); ok && name != "" {
			return short(name)
		}
	}
	return ""
}

func decodeCommandResponse(frame status.Document) (Message, error) {
	id, err := transactionID(frame["trid"])
	if err != nil {
		return nil, err
	}
	data, _ := frame["data"].(map[string]any)
	ok, answered := data["isok"].(bool)
	r := Response{TransactionID: id, Answered: answered, OK: ok}
	if !ok {
		// Where the word is, is not documented; res has been seen.
		for _, member := range []string{"res", "error", "errors", "message"} {
			if r.Error = words(data[member]); r.Error != "" {
				r.Answered = true
				break
			}
		}
	}
	return r, nil
}

func decodeJrpcResponse(frame status.Document) (Message, error) {
	id, err := transactionID(frame["trid"])
	if err != nil {
		return nil, err
	}
	r := Response{TransactionID: id}
	response, _ := frame["response"].(map[string]any)
	_, hasResult := response["result"]
	failure, hasError := response["error"]
	if r.Answered = hasResult != hasError; !r.Answered {
		return r, nil // exactly one of the two is there (US)
	}
	if r.OK = hasResult; !r.OK {
		if r.Error = words(failure); r.Error == "" {
			r.Error = "an error without words"
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
