// Package demo furnishes two centres of a development platform and lets simulated plugs
// dial in.
package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/transport/shelly/simulator"
)

// Demo sets up over HTTP what it sets up, as a back end would. Its plugs speak the
// protocol of real ones.
type Demo struct {
	url    string // of the server
	token  string // of an admin of both systems
	client *http.Client
	logger *slog.Logger
}

// New makes the Demo of the server at a URL. The token is one of an admin of all
// [Systems].
func New(url, token string, logger *slog.Logger) *Demo {
	return &Demo{url: url, token: token, client: &http.Client{Timeout: 10 * time.Second}, logger: logger}
}

// Systems are the centres, in order.
func Systems() []domain.SystemID { return slices.Sorted(maps.Keys(centres)) }

// Plugs are the ids of a centre's plugs.
func Plugs(system domain.SystemID) (ids []domain.DeviceID) {
	for _, one := range centres[system] {
		ids = append(ids, one.device(system))
	}
	return ids
}

// centres are the systems, and what they have.
var centres = map[domain.SystemID][]plug{
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

type plug struct {
	equipment, name, kind, location string
	watts                           float64 // when it works
}

// device is the id of the plug, the same at every start. No two systems may have
// a device in common.
func (p plug) device(system domain.SystemID) domain.DeviceID {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(string(system) + "/" + p.equipment)) // never fails
	return domain.DeviceID(fmt.Sprintf("shellyplugsg3-%012x", sum.Sum64()&0xffffffffffff))
}

// The plugs of a demo live faster than real ones, so that there is something to
// see.
const (
	beat    = 15 * time.Second
	changes = 4 // per plug and minute
	pause   = 300 * time.Millisecond
)

// Run lets the plugs live until ctx ends.
func (d *Demo) Run(ctx context.Context) {
	var running sync.WaitGroup
	for system, plugs := range centres {
		running.Go(func() {
			url, err := d.connect(ctx, system)
			if err != nil {
				if ctx.Err() == nil {
					d.logger.Error("the demo's plugs have no connection", "system", system, "error", err)
				}
				return
			}
			for _, one := range plugs {
				running.Go(func() { d.live(ctx, system, one, url) })
				running.Go(func() { d.install(ctx, system, one) })
			}
		})
	}
	running.Wait()
}

// connect returns where the plugs of a system dial in. The key of a former run is
// not kept anywhere, so it is replaced.
func (d *Demo) connect(ctx context.Context, system domain.SystemID) (string, error) {
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
		_ = backoff.Sleep(ctx, pause) // the server has only just begun
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
}

// live is a plug that dials in.
func (d *Demo) live(ctx context.Context, system domain.SystemID, one plug, url string) {
	p := simulator.NewPlug(simulator.PlugConfig{
		ID: one.device(system), Name: one.name, Watts: one.watts, Beat: beat, ChangesPerMinute: changes,
		Seed: uint64(time.Now().UnixNano()), Logger: d.logger,
	})
	if err := p.Run(ctx, url); err != nil && ctx.Err() == nil {
		d.logger.Error("a plug of the demo ended", "device", one.device(system), "error", err)
	}
}

// install registers a piece of equipment and puts its plug in front of it, as soon
// as the plug is known. What a former run has done is done.
func (d *Demo) install(ctx context.Context, system domain.SystemID, one plug) {
	base := "/api/v1/systems/" + string(system)
	assignment := base + "/devices/" + string(one.device(system)) + "/assignment?move=true"
	for ctx.Err() == nil {
		status, err := d.send(ctx, http.MethodPost, base+"/equipment", map[string]string{
			"equipmentId": one.equipment, "name": one.name, "kind": one.kind, "location": one.location,
		}, nil)
		if err == nil || status == http.StatusConflict {
			status, err = d.send(ctx, http.MethodPut, assignment, map[string]string{"equipmentId": one.equipment}, nil)
		}
		switch {
		case err == nil:
			return
		case status != http.StatusNotFound && status != 0 && status < http.StatusInternalServerError:
			d.logger.Error("the demo's equipment", "system", system, "equipment", one.equipment, "error", err)
			return
		}
		_ = backoff.Sleep(ctx, pause)
	}
}

// send makes a request and reads the answer into out, unless that is nil. status
// is 0 when there was no answer.
func (d *Demo) send(ctx context.Context, method, path string, body, out any) (status int, err error) {
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
