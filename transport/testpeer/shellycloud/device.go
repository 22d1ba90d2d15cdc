package shellycloud

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Device is a device on a [Account].
type Device struct {
	ID    string // hex, of 6 digits (first generation) or 12
	gen1  bool
	cloud *Cloud

	// Guarded by cloud.mu.
	account  *Account
	partial  bool
	online   bool
	unlisted bool
	serial   int
	channels []channel
}

type channel struct {
	on     bool
	source string
	powerW float64
	wh     float64
}

// AddDevice adds a device with so many channels. An id of 6 hex digits is one of the
// first generation.
func (a *Account) AddDevice(id string, channels int) *Device {
	d := &Device{ID: id, gen1: len(id) == 6, cloud: a.cloud, account: a, online: true, channels: make([]channel, channels)}
	for i := range d.channels {
		d.channels[i].source = "init"
	}
	a.set(func() { a.devices[id] = d })
	return d
}

// Leave takes the device off the account, without a word.
func (d *Device) Leave() { d.set(func() { delete(d.account.devices, d.ID) }) }

// MoveTo puts the device on another account of the same cloud.
func (d *Device) MoveTo(a *Account) {
	d.set(func() {
		delete(d.account.devices, d.ID)
		d.account = a
		a.devices[d.ID] = d
	})
}

// SetPartial makes the device's changes come as what changed alone. Otherwise each
// is the whole status.
func (d *Device) SetPartial(on bool) { d.set(func() { d.partial = on }) }

// SetUnlisted leaves the device out of all_status, as those are that others share
// with the account.
func (d *Device) SetUnlisted(on bool) { d.set(func() { d.unlisted = on }) }

// Press switches a channel at the device.
func (d *Device) Press(channel int, on bool) {
	d.set(func() {
		d.channels[channel].on, d.channels[channel].source = on, "button"
		d.changed(channel, "output", "source", "apower")
	})
}

// Draw sets what a channel draws while it is on.
func (d *Device) Draw(channel int, powerW float64) {
	d.set(func() {
		d.channels[channel].powerW = powerW
		d.changed(channel, "apower")
	})
}

// Count sets a channel's energy counter.
func (d *Device) Count(channel int, wh float64) {
	d.set(func() {
		d.channels[channel].wh = wh
		d.changed(channel, "aenergy")
	})
}

// SetOnline takes the device off line, or back.
func (d *Device) SetOnline(online bool) {
	d.set(func() {
		d.online = online
		n := 0
		if online {
			n = 1
		}
		d.account.event(map[string]any{"event": "Shelly:Online", "device": d.ref(), "online": n})
	})
}

// SendStatus sends the device's whole status once more.
func (d *Device) SendStatus() {
	d.set(func() {
		d.account.event(map[string]any{"event": "Shelly:StatusOnChange", "device": d.ref(), "status": d.status()})
	})
}

// On reports whether a channel is on.
func (d *Device) On(channel int) (on bool) {
	d.set(func() { on = d.channels[channel].on })
	return on
}

// WireID is the device's id as the socket writes it.
func (d *Device) WireID() string {
	n, _ := strconv.ParseUint(d.ID, 16, 64)
	return strconv.FormatUint(n, 10)
}

func (d *Device) set(f func()) {
	d.cloud.mu.Lock()
	defer d.cloud.mu.Unlock()
	f()
}

// hexID is the id that a socket's decimal stands for.
func hexID(decimal string) string {
	n, err := strconv.ParseUint(decimal, 10, 64)
	if err != nil {
		return decimal
	}
	if n < 1<<24 {
		return fmt.Sprintf("%06x", n)
	}
	return fmt.Sprintf("%012x", n)
}

// The methods below want cloud.mu held.

func (d *Device) gen() string {
	if d.gen1 {
		return "G1"
	}
	return "G2"
}

func (d *Device) code() string {
	if d.gen1 {
		return "SHPLG-S"
	}
	return "S3PL-00112EU"
}

func (d *Device) ref() map[string]any {
	return map[string]any{"id": d.WireID(), "code": d.code(), "gen": d.gen()}
}

// changed sends what changed of a channel.
func (d *Device) changed(channel int, fields ...string) {
	status := d.status()
	if d.partial && !d.gen1 {
		name := "switch:" + strconv.Itoa(channel)
		whole := status[name].(map[string]any)
		part := map[string]any{"id": channel}
		for _, field := range fields {
			part[field] = whole[field]
		}
		status = map[string]any{"serial": status["serial"], "ts": status["ts"], name: part}
	}
	d.account.event(map[string]any{"event": "Shelly:StatusOnChange", "device": d.ref(), "status": status})
}

// listed is the device's entry in all_status.
func (d *Device) listed() map[string]any {
	status := d.status()
	status["_dev_info"] = map[string]any{"id": d.ID, "gen": d.gen(), "code": d.code(), "online": d.online}
	return status
}

func (d *Device) status() map[string]any {
	now := time.Now()
	status := map[string]any{
		"id": d.ID, "code": d.code(), "_updated": now.UTC().Format(time.DateTime), "cloud": map[string]any{"connected": true},
	}
	if d.gen1 {
		d.serial++
		status["serial"], status["mac"], status["unixtime"] = d.serial, "C45BBE"+strings.ToUpper(d.ID), now.Unix()
		var relays, meters []any
		for _, ch := range d.channels {
			relays = append(relays, map[string]any{"ison": ch.on, "has_timer": false, "source": ch.source})
			meters = append(meters, map[string]any{
				"power": ch.power(), "is_valid": true, "timestamp": now.Unix() + 3600, "total": ch.wh * 60,
			})
		}
		status["relays"], status["meters"] = relays, meters
		return status
	}
	status["serial"], status["ts"] = now.Unix(), float64(now.UnixMicro())/1e6
	status["ble"] = []any{} // for {}
	status["sys"] = map[string]any{
		"mac": strings.ToUpper(d.ID), "unixtime": now.Unix(), "uptime": 751, "available_updates": []any{},
	}
	for i, ch := range d.channels {
		status["switch:"+strconv.Itoa(i)] = map[string]any{
			"id": i, "source": ch.source, "output": ch.on, "apower": ch.power(), "voltage": 230.5, "freq": 50,
			"current": ch.power() / 230.5, "aenergy": map[string]any{"total": ch.wh},
			"temperature": map[string]any{"tC": 31.5, "tF": 88.7},
		}
	}
	return status
}

func (c channel) power() float64 {
	if c.on {
		return c.powerW
	}
	return 0
}
