package rpc

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// source is the name that we give ourselves in frames.
const source = "plugcast"

// Methods that we call (Shelly, Switch).
const (
	methodGetStatus       = "Shelly.GetStatus"
	methodSwitchSet       = "Switch.Set"
	methodSwitchGetStatus = "Switch.GetStatus"
)

// request is a request of ours.
type request struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      uint64          `json:"id"`
	Source  string          `json:"src"`
	Dest    domain.DeviceID `json:"dst"`
	Method  string          `json:"method"`
	Params  any             `json:"params,omitempty"`
}

func encode(id uint64, to domain.DeviceID, method string, params any) []byte {
	raw, err := json.Marshal(request{"2.0", id, source, to, method, params})
	if err != nil {
		panic(fmt.Sprintf("rpc: encode %s: %v", method, err)) // cannot happen: params are booleans, integers and finite durations
	}
	return raw
}

// GetStatus encodes a request for the whole status. Its result is a document like that
// of a NotifyFullStatus.
func GetStatus(id uint64, to domain.DeviceID) []byte { return encode(id, to, methodGetStatus, nil) }

// SwitchSet encodes a request to switch a channel, and to switch it back after a time
// unless that is 0. Repeating it is safe, because it names the wanted state (Switch).
func SwitchSet(id uint64, to domain.DeviceID, channel int, on bool, toggleAfter time.Duration) []byte {
	return encode(id, to, methodSwitchSet, struct {
		ID          int     `json:"id"`
		On          bool    `json:"on"`
		ToggleAfter float64 `json:"toggle_after,omitempty"` // seconds
	}{channel, on, toggleAfter.Seconds()})
}

// SwitchGetStatus encodes a request for the status of one channel. Its result is the
// component.
func SwitchGetStatus(id uint64, to domain.DeviceID, channel int) []byte {
	return encode(id, to, methodSwitchGetStatus, struct {
		ID int `json:"id"`
	}{channel})
}

// NoHandler encodes the answer to a device's request: we take none. It does not repeat
// an id or a method that is too long.
func NoHandler(f *Frame) []byte {
	id, method := f.ID, f.Method
	if len(id) > maxMessage || !json.Valid(id) {
		id = nil // encoded as null
	}
	if len(method) > maxMessage {
		method = "that"
	}
	raw, err := json.Marshal(struct {
		ID     json.RawMessage `json:"id"`
		Source string          `json:"src"`
		Dest   domain.DeviceID `json:"dst"`
		Error  any             `json:"error"`
	}{id, source, f.Source, struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}{CodeNoHandler, "No handler for " + method}})
	if err != nil {
		panic(fmt.Sprintf("rpc: encode an answer: %v", err)) // cannot happen: strings, a number, and an id that is valid JSON
	}
	return raw
}
