// Package rpc decodes and encodes the frames of the local RPC of Shelly devices of the
// second generation and later, as they travel over WebSocket. It does no I/O.
//
// A frame is a request (method and id), a notification (method alone) or a response
// (result or error). Both sides may send any of them (RPC). Sources: RPC,
// Notifications, Switch and Ws are the vendor's pages of those names.
package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// The notifications about a device's status (Notifications).
const (
	NotifyStatus     = "NotifyStatus"     // a delta
	NotifyFullStatus = "NotifyFullStatus" // everything; the first frame of an outbound socket
	NotifyEvent      = "NotifyEvent"
)

// Kind is the kind of a frame.
type Kind int

// The kinds of frame.
const (
	KindNotification Kind = iota
	KindRequest
	KindResponse
)

// Frame is a frame from a device.
type Frame struct {
	Kind   Kind
	Source domain.DeviceID // the name that the device gives itself
	Method string          // of a request or notification
	// ID is the request's id as it was written: a number or a string. A response repeats
	// it.
	ID json.RawMessage
	// Params are those of a status notification, and empty in other frames.
	Params status.Document
	Result json.RawMessage // of a successful response
	Err    *Error          // of a failed response
}

// Number returns the id as a number, as our own requests have it.
func (f *Frame) Number() (n uint64, ok bool) {
	n, err := strconv.ParseUint(string(f.ID), 10, 64)
	return n, err == nil
}

// The refusals of [Decode], besides those of package status.
var (
	ErrNoSource = errors.New("its src is not the id of a device")
	ErrNoFrame  = errors.New("it is no request, notification or response")
)

// Decode decodes a frame. It rejects frames that no device sends at low cost: see
// [status.Check]. The text of an error has nothing of the frame in it.
func Decode(raw []byte) (Frame, error) {
	raw = status.Mend(raw)
	if err := status.Check(raw); err != nil {
		return Frame{}, fmt.Errorf("rpc: %w", err)
	}
	var w struct {
		Source string          `json:"src"`
		Method *string         `json:"method"`
		ID     json.RawMessage `json:"id"`
		Params json.RawMessage `json:"params"`
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(raw, &w); err != nil {
		return Frame{}, fmt.Errorf("rpc: %w", status.ErrNotJSON)
	}
	source, err := domain.ParseDeviceID(w.Source)
	if err != nil || strings.ContainsRune(w.Source, ':') {
		return Frame{}, fmt.Errorf("rpc: %w", ErrNoSource)
	}
	f := Frame{Source: source, ID: present(w.ID)}
	switch {
	// Only a frame without a method is a response (measured: a device may use an id of
	// ours for a request of its own).
	case w.Method != nil:
		f.Method = *w.Method
		switch f.Method {
		case NotifyStatus, NotifyFullStatus: // also with an id, as Wall Displays send them (measured)
		case NotifyEvent:
			return f, nil
		default:
			if f.ID != nil {
				f.Kind = KindRequest
			}
			return f, nil
		}
		if present(w.Params) == nil {
			f.Params = status.Document{}
			return f, nil
		}
		if f.Params, err = status.Parse(w.Params); err != nil {
			return Frame{}, fmt.Errorf("rpc: params: %w", err)
		}
	case f.ID != nil && present(w.Error) != nil:
		f.Kind, f.Err = KindResponse, decodeError(w.Error)
	case f.ID != nil && w.Result != nil:
		f.Kind, f.Result = KindResponse, w.Result
	default:
		return Frame{}, fmt.Errorf("rpc: %w", ErrNoFrame)
	}
	return f, nil
}

// SourceOf returns the name that the sender of an undecodable frame gives itself, or ""
// if it cannot be found.
func SourceOf(raw []byte) domain.DeviceID {
	_, rest, _ := bytes.Cut(raw, []byte(`"src"`))
	rest = bytes.TrimLeft(rest[:min(len(rest), 200)], " \t\r\n:")
	if name, found := bytes.CutPrefix(rest, []byte(`"`)); found {
		name, _, _ = bytes.Cut(name, []byte(`"`))
		if id, err := domain.ParseDeviceID(string(name)); err == nil {
			return id
		}
	}
	return ""
}

// present returns raw, or nil when it is null or missing.
func present(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil
	}
	return raw
}
