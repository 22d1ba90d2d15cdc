package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/transport/shelly/simulator"
)

// demo furnishes two centres of a development platform and lets their plugs dial
// in: simulated ones, over the protocol of real ones. What it sets up, it sets up
// over HTTP, as a back end would.
type demo struct {
	url    string // of the server
	token  string // of an admin of both systems
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

// device is the id of the plug, the same at every start. No two systems may have
// a device in common.
func (p demoPlug) device(system domain.SystemID) domain.DeviceID {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(string(system) + "/" + p.equipment)) // never fails
	return domain.DeviceID(fmt.Sprintf("shellyplugsg3-%012x", sum.Sum64()&0xffffffffffff))
}

// The plugs of a demo live faster than real ones, so that there is something to
// see.
const (
	demoBeat    = 15 * time.Second
	demoChanges = 4 // per plug and minute
	demoPause   = 300 * time.Millisecond
)

// run lets the plugs live until ctx ends.
func (d *demo) run(ctx context.Context) {
	var centres sync.WaitGroup
	for system, plugs := range demoSystems {
		centres.Go(func() {
			url, err := d.connect(ctx, system)
			if err != nil {
				if ctx.Err() == nil {
					d.logger.Error("the demo's plugs have no connection", "system", system, "error", err)
				}
				return
			}
			for _, plug := range plugs {
				centres.Go(func() { d.live(ctx, system, plug, url) })
				centres.Go(func() { d.install(ctx, system, plug) })
			}
		})
	}
	centres.Wait()
}

// connect returns where the plugs of a system dial in. The key of a former run is
// not kept anywhere, so it is replaced.
func (d *demo) connect(ctx context.Context, system domain.SystemID) (string, error) {
	id := "plugs-" + string(system)
	list := "/api/v1/systems/" + string(system) + "/connections"
	var made struct {
		DialInURL string `json:"dialInUrl"`
	}
	for {
		status, err := d.send(ctx, http.MethodPost, list, map[string]string{
			"connectionId": id, "kind": string(domain.ConnectionShellyOutbound), "name": "Simulated plugs",
		}, &made)
		if status == http.StatusConflict {
			_, err = d.send(ctx, http.MethodPatch, list+"/"+id, map[string]bool{"rotateKey": true}, &made)
		}
		switch {
		case err == nil && made.DialInURL == "":
			return "", errors.New("the server told no URL to dial")
		case err == nil:
			return made.DialInURL, nil
		case status != 0 && status < http.StatusInternalServerError:
			return "", err
		}
		_ = backoff.Sleep(ctx, demoPause) // the server has only just begun
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
}

// live is a plug that dials in.
func (d *demo) live(ctx context.Context, system domain.SystemID, plug demoPlug, url string) {
	p := simulator.NewPlug(simulator.PlugConfig{
		ID: plug.device(system), Name: plug.name, Watts: plug.watts, Beat: demoBeat, ChangesPerMinute: demoChanges,
		Seed: uint64(time.Now().UnixNano()), Logger: d.logger,
	})
	if err := p.Run(ctx, url); err != nil && ctx.Err() == nil {
		d.logger.Error("a plug of the demo ended", "device", plug.device(system), "error", err)
	}
}

// install registers a piece of equipment and puts its plug in front of it, as soon
// as the plug is known. What a former run has done is done.
func (d *demo) install(ctx context.Context, system domain.SystemID, plug demoPlug) {
	base := "/api/v1/systems/" + string(system)
	assignment := base + "/devices/" + string(plug.device(system)) + "/assignment?move=true"
	for ctx.Err() == nil {
		status, err := d.send(ctx, http.MethodPost, base+"/equipment", map[string]string{
			"equipmentId": plug.equipment, "name": plug.name, "kind": plug.kind, "location": plug.location,
		}, nil)
		if err == nil || status == http.StatusConflict {
			status, err = d.send(ctx, http.MethodPut, assignment, map[string]string{"equipmentId": plug.equipment}, nil)
		}
		switch {
		case err == nil:
			return
		case status != http.StatusNotFound && status != 0 && status < http.StatusInternalServerError:
			d.logger.Error("the demo's equipment", "system", system, "equipment", plug.equipment, "error", err)
			return
		}
		_ = backoff.Sleep(ctx, demoPause)
	}
}

// send makes a request and reads the answer into out, unless that is nil. status
// is 0 when there was no answer.
func (d *demo) send(ctx context.Context, method, path string, body, out any) (status int, err error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(ctx, method, d.url+path, bytes.NewReader(raw))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+d.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := d.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	switch {
	case err != nil:
	case response.StatusCode >= 400:
		err = fmt.Errorf("%s %s: %s %s", method, path, response.Status, answer)
	case out != nil:
		err = json.Unmarshal(answer, out)
	}
	return response.StatusCode, err
}
