package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// demo feeds a development platform with two centres' plugs, over HTTP, as a
// back end would.
type demo struct {
	url    string // of the server
	token  string // of a service, for both systems
	client *http.Client
	logger *slog.Logger
}

// demoSystems are the centres, and what they have.
var demoSystems = map[domain.SystemID][]demoPlug{
	"clinica-sol": {
		{"laser-1", "Laser CO₂", "laser", "Room 1", 420},
		{"laser-2", "Laser Nd:YAG", "laser", "Room 2", 610},
		{"lamp-1", "Surgical lamp", "lamp", "Room 1", 85},
		{"chair-1", "Treatment chair", "chair", "Room 2", 140},
		{"steriliser-1", "Autoclave", "steriliser", "Back office", 1850},
	},
	"centro-luna": {
		{"lamp-1", "UV lamp", "lamp", "Cabin 1", 60},
		{"chair-1", "Pedicure chair", "chair", "Cabin 2", 95},
		{"steamer-1", "Facial steamer", "steamer", "Cabin 1", 780},
	},
}

type demoPlug struct {
	equipment, name, kind, location string
	watts                           float64 // when it works
}

func (p demoPlug) device(i int) domain.DeviceID {
	return domain.DeviceID(fmt.Sprintf("shellyplugsg3-demo%08x", i+1))
}

// run registers the equipment once and then sends updates until ctx ends.
func (d *demo) run(ctx context.Context) {
	state := map[domain.SystemID][]demoState{}
	for system, plugs := range demoSystems {
		state[system] = make([]demoState, len(plugs))
	}
	d.tick(ctx, state)
	for system, plugs := range demoSystems {
		for i, plug := range plugs {
			d.install(ctx, system, plug, plug.device(i))
		}
	}
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			d.tick(ctx, state)
		}
	}
}

// demoState is what a plug of the demo measures.
type demoState struct {
	known    bool
	on       bool
	powerW   float64
	energyWh float64
}

// step lets a second pass: now and then somebody switches the plug, and power
// wavers while it is on. It reports whether there is something to tell.
func (s *demoState) step(plug demoPlug) bool {
	before := *s
	if !s.known || rand.IntN(25) == 0 {
		s.on = rand.IntN(3) > 0
	}
	s.powerW = 0
	if s.on {
		s.powerW = math.Round(plug.watts*(0.95+0.1*rand.Float64())*10) / 10
	}
	s.energyWh += s.powerW / 3600
	s.known = true
	return !before.known || s.on != before.on || s.on && rand.IntN(3) == 0
}

func (d *demo) tick(ctx context.Context, state map[domain.SystemID][]demoState) {
	var updates []domain.SystemUpdate
	for system, plugs := range demoSystems {
		for i, plug := range plugs {
			s := &state[system][i]
			if !s.step(plug) {
				continue
			}
			updates = append(updates, domain.SystemUpdate{SystemID: system, DeviceUpdate: domain.DeviceUpdate{
				DeviceID: plug.device(i), Name: domain.Some(plug.name), Online: domain.Some(true), RelayOn: domain.Some(s.on),
				PowerW: domain.Some(s.powerW), VoltageV: domain.Some(math.Round(10*(229+2*rand.Float64())) / 10),
				EnergyWh: domain.Some(math.Round(s.energyWh*100) / 100), DeviceTime: domain.Some(time.Now().UTC()),
			}})
		}
	}
	if len(updates) > 0 {
		d.send(ctx, http.MethodPost, "/api/v1/device-updates", updates)
	}
}

// install registers a piece of equipment and puts its plug in front of it. What
// a former run has done is done: both are refused then, and that is fine.
func (d *demo) install(ctx context.Context, system domain.SystemID, plug demoPlug, device domain.DeviceID) {
	base := "/api/v1/systems/" + string(system)
	d.send(ctx, http.MethodPost, base+"/equipment", map[string]string{
		"equipmentId": plug.equipment, "name": plug.name, "kind": plug.kind, "location": plug.location,
	})
	d.send(ctx, http.MethodPut, base+"/devices/"+string(device)+"/assignment", map[string]string{"equipmentId": plug.equipment})
}

func (d *demo) send(ctx context.Context, method, path string, body any) {
	raw, err := json.Marshal(body)
	if err == nil {
		err = d.request(ctx, method, path, raw)
	}
	if err != nil && ctx.Err() == nil {
		d.logger.Debug("demo", "path", path, "error", err)
	}
}

func (d *demo) request(ctx context.Context, method, path string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, method, d.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+d.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return err
	}
	if response.StatusCode >= 400 && response.StatusCode != http.StatusConflict {
		return errors.New(response.Status + " " + string(answer))
	}
	return nil
}
