package rpc

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// source is how we call ourselves to devices.
const source = "plugcast"

// Methods that we ask for (Shelly, Switch).
const (
	methodGetStatus       = "Shelly.GetStatus"
	methodSwitchSet       = "Switch.Set"
	methodSwitchGetStatus = "Switch.GetStatus"
)

// request is a frame of ours.
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
		panic(fmt.Sprintf("rpc: encode %s: %v", method, err)) // cannot be: params are truths, integers and finite durations
	}
	return raw
}

// GetStatus asks for a whole status. Its result is a document as that of a
// NotifyFullStatus.
func GetStatus(id uint64, to domain.DeviceID) []byte { return encode(id, to, methodGetStatus, nil) }

// SwitchSet switches a channel, and back after a time unless that is 0. It may be
// repeated: it says how the relay should be (Switch).
func SwitchSet(id uint64, to domain.DeviceID, channel int, on bool, toggleAfter time.Duration) []byte {
	return encode(id, to, methodSwitchSet, struct {
		ID          int     `json:"id"`
		On          bool    `json:"on"`
		ToggleAfter float64 `json:"toggle_after,omitempty"` // seconds
	}{channel, on, toggleAfter.Seconds()})
}

// SwitchGetStatus asks for the status of one channel. Its result is the
// component.
func SwitchGetStatus(id uint64, to domain.DeviceID, channel int) []byte {
	return encode(id, to, methodSwitchGetStatus, struct {
		ID int `json:"id"`
	}{channel})
}

// NoHandler answers a device's request that we do not take. An id or a method that
// no device would make up is not repeated.
func NoHandler(f *Frame) []byte {
	id, method := f.ID, f.Method
	if len(id) > maxMessage || !json.Valid(id) {
		id = nil // which is null
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
		panic(fmt.Sprintf("rpc: encode an answer: %v", err)) // cannot be: texts, a number, and an id that is JSON
	}
	return raw
}
