package shellycloud

import (
	"encoding/json"
	"strconv"
	"time"
)

// Fault is what goes wrong with a command.
type Fault int

// The faults. Without one the command is done, answered, and its status follows.
const (
	Fine         Fault = iota
	NoAnswer           // it is done and not answered
	Late               // it is done, and answered when SendLate says so
	WrongTrid          // it is done, and the answer names another request
	Twice              // it is answered twice
	WrongID            // the device is on another account
	Unauthorized       // the account may not switch it
	Offline            // the cloud does not reach the device
	Empty              // the answer does not say how it went
	Limited            // there were too many
	Break              // it is done, and the socket breaks off before the answer
	NoStatus           // it is done and answered, and no status follows
	NotDone            // it is answered as done, and nothing is done
)

type request struct {
	Event    string          `json:"event"`
	Trid     json.RawMessage `json:"trid"`
	DeviceID string          `json:"deviceId"`
	Data     struct {
		Cmd    string `json:"cmd"`
		Params struct {
			Turn string `json:"turn"`
			ID   int    `json:"id"`
		} `json:"params"`
	} `json:"data"`
	Method string `json:"method"`
	Params struct {
		ID          int     `json:"id"`
		On          bool    `json:"on"`
		ToggleAfter float64 `json:"toggle_after"`
	} `json:"params"`
}

// command does what a client asks for on its socket.
func (a *Account) command(s *socket, raw []byte) {
	var r request
	if json.Unmarshal(raw, &r) != nil {
		return
	}
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	if a.deaf {
		return
	}
	jrpc := r.Event == "Shelly:JrpcRequest"
	on, channel := r.Params.On, r.Params.ID
	if !jrpc {
		if r.Event != "Shelly:CommandRequest" || r.Data.Cmd != "relay" {
			return
		}
		on, channel = r.Data.Params.Turn == "on", r.Data.Params.ID
	}
	a.counts.Commands++
	d := a.devices[hexID(r.DeviceID)]
	refusal := ""
	switch {
	case d == nil || a.fault == WrongID:
		refusal = "WRONG_ID"
	case a.fault == Unauthorized:
		refusal = "UNAUTHORIZED"
	case !d.online || a.fault == Offline:
		refusal = "DEVICE_OFFLINE"
	case a.fault == Limited:
		refusal = "max_req"
	case channel < 0 || channel >= len(d.channels):
		refusal = "Argument 'id', value " + strconv.Itoa(channel) + " not found!"
	}
	wasOn := refusal == "" && d.channels[channel].on
	if refusal == "" && a.fault != NotDone {
		d.channels[channel].on, d.channels[channel].source = on, "SHC"
	}
	a.answer(s, r, jrpc, refusal, wasOn)
	if refusal == "" && a.fault != NoStatus && a.fault != NotDone && a.fault != Break {
		d.changed(channel, "output", "source", "apower")
	}
	if refusal == "" && jrpc && r.Params.ToggleAfter > 0 {
		a.later(r.Params.ToggleAfter, d, channel, !on)
	}
}

// answer answers a request, or does not. cloud.mu is held.
func (a *Account) answer(s *socket, r request, jrpc bool, refusal string, wasOn bool) {
	trid := r.Trid
	switch {
	case a.fault == WrongTrid && jrpc:
		trid = json.RawMessage(`"another"`)
	case a.fault == WrongTrid:
		trid = json.RawMessage("7")
	}
	reply := map[string]any{"event": "Shelly:CommandResponse", "trid": trid, "user": 6550, "deviceId": r.DeviceID}
	switch {
	case jrpc && refusal != "":
		reply["response"] = map[string]any{"error": refusal}
	case jrpc:
		reply["response"] = map[string]any{"result": map[string]any{"was_on": wasOn}}
	case refusal != "":
		reply["data"] = map[string]any{"isok": false, "res": refusal}
	case a.fault != Empty:
		reply["data"] = map[string]any{"isok": true}
	}
	if jrpc {
		reply["event"] = "Shelly:JrpcResponse"
	}
	raw, _ := json.Marshal(reply)
	switch a.fault {
	case NoAnswer:
	case Break:
		s.cut()
	case Late:
		a.late = append(a.late, raw)
	case Twice:
		s.send(raw)
		s.send(raw)
	default:
		s.send(raw)
	}
}

// later switches a channel after so many seconds. cloud.mu is held.
func (a *Account) later(seconds float64, d *Device, channel int, on bool) {
	if a.cloud.closed {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(time.Duration(seconds*float64(time.Second)), func() {
		a.set(func() {
			delete(a.cloud.timers, timer)
			d.channels[channel].on, d.channels[channel].source = on, "timer"
			d.changed(channel, "output", "source", "apower")
		})
	})
	a.cloud.timers[timer] = struct{}{}
}
