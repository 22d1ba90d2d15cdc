package simulator

import (
	"encoding/json"
	"strconv"
	"time"
)

// plugObject is a JSON object of a frame.
type plugObject map[string]any

// plugFrame is a frame of the RPC protocol (RPC), as a device writes it.
type plugFrame struct {
	ID     json.RawMessage `json:"id,omitempty"`
	Src    string          `json:"src"`
	Dst    string          `json:"dst,omitempty"`
	Method string          `json:"method,omitempty"`
	Params plugObject      `json:"params,omitempty"`
	Result *plugObject     `json:"result,omitempty"`
	Error  *plugError      `json:"error,omitempty"`
}

// plugError is why a request failed.
type plugError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// enqueue has a frame sent, if the socket is open. The caller holds mu and kicks,
// unless it is the goroutine of Run.
func (p *Plug) enqueue(frame []byte) bool {
	if !p.open || p.ending != plugStays || len(p.queue) >= maxPlugQueue {
		return false
	}
	p.queue = append(p.queue, frame)
	return true
}

func (p *Plug) encode(f plugFrame) []byte {
	f.Src = string(p.cfg.ID)
	raw, err := json.Marshal(f)
	if err != nil {
		panic(err) // frames are made of texts, numbers and truths
	}
	return raw
}

// notify tells of a channel. The caller holds mu.
func (p *Plug) notify(now time.Time, i int, component plugObject) {
	p.notifyOf(now, plugSwitch(i), component)
}

func (p *Plug) notifyOf(now time.Time, name string, component plugObject) {
	if !p.open {
		return
	}
	params := plugObject{name: component}
	p.stamp(now, params)
	p.enqueue(p.encode(plugFrame{Dst: "ws", Method: "NotifyStatus", Params: params})) // dst measured
}

// stamp adds the device's time, which it does not know right after it booted.
func (p *Plug) stamp(now time.Time, params plugObject) {
	if p.synced {
		params["ts"] = plugSeconds(now.Add(p.skew))
	}
}

func plugSwitch(i int) string { return "switch:" + strconv.Itoa(i) }

// plugSeconds is a time as devices write it.
func plugSeconds(t time.Time) float64 { return float64(t.UnixMilli()/10) / 100 }

// fullStatus is the first frame of a socket. The caller holds mu.
func (p *Plug) fullStatus(now time.Time) []byte {
	params := p.status(now)
	p.stamp(now, params)
	return p.encode(plugFrame{Dst: "ws", Method: "NotifyFullStatus", Params: params})
}

// status is the whole status. The caller holds mu.
func (p *Plug) status(now time.Time) plugObject {
	s := plugObject{
		"ble":      plugObject{},
		"cloud":    plugObject{"connected": false},
		"mqtt":     plugObject{"connected": false},
		"plugs_ui": plugObject{},
		"sys":      p.sys(now),
		"wifi":     plugObject{"sta_ip": "192.0.2.41", "status": "got ip", "ssid": "example-net", "rssi": -50},
		"ws":       plugObject{"connected": true},
	}
	for i := range p.channels {
		s[plugSwitch(i)] = p.component(now, i)
	}
	return s
}

// sys is the component of the device itself (Sys).
func (p *Plug) sys(now time.Time) plugObject {
	sys := plugObject{
		"mac": p.mac, "restart_required": false, "uptime": int64(now.Sub(p.booted) / time.Second),
		"ram_size": 220048, "ram_free": 117516, "fs_size": 1048576, "fs_free": 712704,
		"cfg_rev": 11, "kvs_rev": 0, "schedule_rev": 0, "webhook_rev": 0, "available_updates": plugObject{},
	}
	p.tellTime(now, sys)
	if p.rebooted {
		sys["reset_reason"] = 3
	}
	if p.sleep > 0 {
		sys["wakeup_period"] = p.sleep.Seconds()
		sys["wakeup_reason"] = plugObject{"boot": "deepsleep_wake", "cause": "periodic"}
	}
	return sys
}

func (p *Plug) tellTime(now time.Time, sys plugObject) {
	sys["time"], sys["unixtime"] = nil, nil
	if p.synced {
		at := now.Add(p.skew).UTC()
		sys["time"], sys["unixtime"] = at.Format("15:04"), at.Unix()
	}
}

// component is the whole status of a channel (Switch).
func (p *Plug) component(now time.Time, i int) plugObject {
	c := &p.channels[i]
	s := p.meter(now, i)
	s["id"], s["source"], s["output"] = i, c.source, c.on
	s["temperature"] = plugObject{"tC": 41.3, "tF": 106.3}
	if !c.timerFrom.IsZero() {
		p.tellTimer(c, s)
	}
	return s
}

// meter is what the channel measures; nothing for one that does not.
func (p *Plug) meter(now time.Time, i int) plugObject {
	s := plugObject{}
	if p.cfg.Unmetered {
		return s
	}
	c := &p.channels[i]
	c.settle(now)
	c.shownA = p.current(c)
	s["apower"], s["current"] = c.draw(), c.shownA
	s["voltage"], s["freq"] = plugRound(p.voltage, 1), 50.0
	s["aenergy"] = p.energy(now, c)
	return s
}

// energy is the counter. Without a clock it has no minutes (measured).
func (p *Plug) energy(now time.Time, c *plugChannel) plugObject {
	e := plugObject{"total": plugRound(c.energyWh, 3)}
	if p.synced {
		e["by_minute"] = []float64{plugRound(c.minutes[0], 3), plugRound(c.minutes[1], 3), plugRound(c.minutes[2], 3)}
		e["minute_ts"] = now.Add(p.skew).Truncate(time.Minute).Unix()
	}
	return e
}

// relayDelta is what is told when a relay was set.
func (p *Plug) relayDelta(i int) plugObject {
	c := &p.channels[i]
	s := plugObject{"id": i, "output": c.on, "source": c.source}
	if !p.cfg.Unmetered {
		c.shownA = p.current(c)
		s["apower"], s["current"] = c.draw(), c.shownA
	}
	switch {
	case !c.timerFrom.IsZero():
		p.tellTimer(c, s)
	case c.timerTold:
		c.timerTold = false
		s["timer_started_at"], s["timer_duration"] = nil, nil // what vanished is null (Notifications)
	}
	return s
}

// staleDelta is what firmware 2.0.1-beta1 tells of a relay that was set: the
// output of before (measured).
func (p *Plug) staleDelta(i int) plugObject {
	was := p.channels[i]
	was.on = was.was
	s := plugObject{"id": i, "output": was.on}
	if !p.cfg.Unmetered {
		s["apower"] = was.draw()
	}
	return s
}

func (p *Plug) tellTimer(c *plugChannel, s plugObject) {
	c.timerTold = true
	s["timer_started_at"] = plugSeconds(c.timerFrom.Add(p.skew))
	s["timer_duration"] = c.timerFor.Seconds()
}
