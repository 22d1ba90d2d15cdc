package simulator

import (
	"encoding/json"
	"strconv"
	"time"
)

// CloudFault is what goes wrong with a command.
type CloudFault int

// The faults. Without one the command is done, answered, and its status follows.
const (
	CloudFine         CloudFault = iota
	CloudNoAnswer                // it is done and not answered
	CloudLate                    // it is done, and answered when SendLate says so
	CloudWrongTrid               // it is done, and the answer names another request
	CloudTwice                   // it is answered twice
	CloudWrongID                 // the device is on another account
	CloudUnauthorized            // the account may not switch it
	CloudOffline                 // the cloud does not reach the device
	CloudEmpty                   // the answer does not say how it went
	CloudLimited                 // there were too many
	CloudBreak                   // it is done, and the socket breaks off before the answer
	CloudNoStatus                // it is done and answered, and no status follows
	CloudNotDone                 // it is answered as done, and nothing is done
)

type cloudRequest struct {
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
func (a *CloudAccount) command(s *cloudSocket, raw []byte) {
	var r cloudRequest
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
	d := a.devices[cloudHex(r.DeviceID)]
	refusal := ""
	switch {
	case d == nil || a.fault == CloudWrongID:
		refusal = "WRONG_ID"
	case a.fault == CloudUnauthorized:
		refusal = "UNAUTHORIZED"
	case !d.online || a.fault == CloudOffline:
		refusal = "DEVICE_OFFLINE"
	case a.fault == CloudLimited:
		refusal = "max_req"
	case channel < 0 || channel >= len(d.channels):
		refusal = "Argument 'id', value " + strconv.Itoa(channel) + " not found!"
	}
	wasOn := refusal == "" && d.channels[channel].on
	if refusal == "" && a.fault != CloudNotDone {
		d.channels[channel].on, d.channels[channel].source = on, "SHC"
	}
	a.answer(s, r, jrpc, refusal, wasOn)
	if refusal == "" && a.fault != CloudNoStatus && a.fault != CloudNotDone && a.fault != CloudBreak {
		d.changed(channel, "output", "source", "apower")
	}
	if refusal == "" && jrpc && r.Params.ToggleAfter > 0 {
		a.later(r.Params.ToggleAfter, d, channel, !on)
	}
}

// answer answers a request, or does not. cloud.mu is held.
func (a *CloudAccount) answer(s *cloudSocket, r cloudRequest, jrpc bool, refusal string, wasOn bool) {
	trid := r.Trid
	switch {
	case a.fault == CloudWrongTrid && jrpc:
		trid = json.RawMessage(`"another"`)
	case a.fault == CloudWrongTrid:
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
	case a.fault != CloudEmpty:
		reply["data"] = map[string]any{"isok": true}
	}
	if jrpc {
		reply["event"] = "Shelly:JrpcResponse"
	}
	raw, _ := json.Marshal(reply)
	switch a.fault {
	case CloudNoAnswer:
	case CloudBreak:
		s.cut()
	case CloudLate:
		a.late = append(a.late, raw)
	case CloudTwice:
		s.send(raw)
		s.send(raw)
	default:
		s.send(raw)
	}
}

// later switches a channel after so many seconds. cloud.mu is held.
func (a *CloudAccount) later(seconds float64, d *CloudDevice, channel int, on bool) {
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
