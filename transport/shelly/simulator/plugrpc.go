package simulator

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// plugRequest is a request to a plug.
type plugRequest struct {
	ID     json.RawMessage `json:"id"`
	Src    string          `json:"src"`
	Method string          `json:"method"`
	Params struct {
		ID          *int     `json:"id"`
		On          *bool    `json:"on"`
		ToggleAfter *float64 `json:"toggle_after"` // seconds
	} `json:"params"`
}

// Codes of errors (CommonErrors).
const (
	plugInvalidArgument = -103
	plugNotFound        = -105
	plugNoHandler       = 404
)

// plugDelay is how long after the answer to a Switch.Set its effect is told (measured).
const plugDelay = 3 * time.Millisecond

// hear takes a frame. What is no request is passed over.
func (p *Plug) hear(raw []byte) {
	var r plugRequest
	if err := json.Unmarshal(raw, &r); err != nil || r.Method == "" || len(r.ID) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.lives() {
		return
	}
	answer := plugFrame{ID: r.ID, Dst: r.Src}
	if result, failure := p.answer(time.Now(), &r); failure != nil {
		answer.Error = failure
	} else {
		answer.Result = &result
	}
	if !p.mute {
		p.enqueue(p.encode(answer))
	}
	p.kick()
}

// answer does what is asked. The caller holds mu.
func (p *Plug) answer(now time.Time, r *plugRequest) (plugObject, *plugError) {
	switch r.Method {
	case "Shelly.GetDeviceInfo":
		return p.info(), nil
	case "Shelly.GetStatus":
		return p.status(now), nil
	case "Switch.GetStatus", "Switch.Set", "Switch.Toggle":
	default:
		return nil, &plugError{plugNoHandler, "No handler for " + r.Method}
	}
	switch {
	case r.Params.ID == nil:
		return nil, &plugError{plugInvalidArgument, "Missing required argument 'id'!"}
	case *r.Params.ID < 0 || *r.Params.ID >= len(p.channels):
		return nil, &plugError{plugNotFound, fmt.Sprintf("Argument 'id', value %d not found!", *r.Params.ID)}
	}
	i := *r.Params.ID
	was := p.channels[i].on
	switch {
	case r.Method == "Switch.GetStatus":
		return p.component(now, i), nil
	case r.Method == "Switch.Toggle":
		p.set(now, i, !was, 0)
	case r.Params.On == nil:
		return nil, &plugError{plugInvalidArgument, "Missing required argument 'on'!"}
	default:
		after := 0.0
		if r.Params.ToggleAfter != nil {
			after = *r.Params.ToggleAfter
		}
		if !(after >= 0 && after <= math.MaxInt32) {
			return nil, &plugError{plugInvalidArgument, "Argument 'toggle_after' is out of range!"}
		}
		p.set(now, i, *r.Params.On, time.Duration(after*float64(time.Second)))
	}
	return plugObject{"was_on": was}, nil
}

// set is what Switch.Set does. The caller holds mu.
func (p *Plug) set(now time.Time, i int, on bool, toggleAfter time.Duration) {
	c := &p.channels[i]
	changes := c.on != on || c.source != "WS_in" || !c.timerFrom.IsZero()
	p.turn(now, i, on, "WS_in")
	if toggleAfter > 0 {
		changes = true
		c.timerFrom, c.timerFor = now, toggleAfter
		p.plan(now.Add(toggleAfter), plugDueTimer, i)
	}
	if changes { // a device is silent about what is as it was
		p.plan(now.Add(plugDelay), plugDueRelay, i)
	}
}

// info is who the plug is (Shelly).
func (p *Plug) info() plugObject {
	var name any
	if p.cfg.Name != "" {
		name = p.cfg.Name
	}
	app, _, _ := strings.Cut(string(p.cfg.ID), "-")
	if app == "shellyplugsg3" {
		app = "PlugSG3"
	}
	return plugObject{
		"name": name, "id": p.cfg.ID, "mac": p.mac, "slot": 0, "model": p.cfg.Model, "gen": 3,
		"fw_id": "20241011-114455/1.4.4-g6d2a586", "ver": "1.4.4", "app": app, "auth_en": false, "auth_domain": nil,
	}
}
