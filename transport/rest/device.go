package rest

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/snapshot"
)

const devicePath = systemPath + "/devices/{deviceId}"

// deviceView is a device and its assignment.
type deviceView struct {
	*domain.Device
	Assignment *domain.Assignment `json:"assignment,omitempty" doc:"The equipment that the plug feeds"`
	Stale      bool               `json:"stale,omitempty" doc:"The state may be outdated, because the connection is stopped or down"`

	connection *domain.Connection // the device's, or nil
}

func viewDevice(st *domain.State, d *domain.Device) *deviceView {
	view := &deviceView{Device: d, Assignment: st.Assignments[d.DeviceID], Stale: st.IsStale(d)}
	if d.ConnectionID != nil {
		view.connection = st.Connections[*d.ConnectionID]
	}
	return view
}

// tag returns the ETag of everything that the view shows.
func (v *deviceView) tag() string {
	parts := []domain.Position{v.Position}
	if v.Assignment != nil {
		parts = append(parts, v.Assignment.Position)
	}
	if v.connection != nil {
		parts = append(parts, v.connection.Position)
	}
	return entityTag(parts...)
}

// AsOf is the place in the system's history that an answer reflects.
type AsOf struct {
	SystemID domain.SystemID `json:"systemId"`
	Position domain.Position `json:"position" doc:"The position of the last event that the answer reflects"`
	Seq      uint64          `json:"seq" doc:"The number of the system's events that the answer reflects"`
}

func asOf(st *domain.State) AsOf {
	return AsOf{SystemID: st.SystemID, Position: st.Cursor.Position, Seq: st.Cursor.Seq}
}

type listDevicesInput struct {
	InSystem
	ReadParams
	PageParams
}

type listDevicesOutput struct {
	Body struct {
		AsOf
		Devices []*deviceView `json:"devices"`
		Next    string        `json:"next,omitempty" doc:"The after of the next page; absent on the last page"`
	}
}

type getDeviceInput struct {
	InDevice
	ReadParams
	ConditionalRead
}

type snapshotInput struct {
	InSystem
	ReadParams
}

func (a *API) registerDevices() {
	register(a, operation{
		id: "listDevices", cost: costPage, method: http.MethodGet, path: systemPath + "/devices", tag: "Devices",
		summary: "List the devices of a system",
	}, a.listDevices)
	register(a, operation{
		id: "getDevice", method: http.MethodGet, path: devicePath, tag: "Devices",
		summary: "Get a device with its assignment", errors: []int{404},
		detail: "A device is `stale` while its connection is stopped or down, because the server learns nothing new about it. That means " +
			"neither offline nor switched off.",
	}, a.getDevice)
	register(a, operation{
		id: "getSnapshot", cost: SnapshotCost, method: http.MethodGet, path: systemPath + "/snapshot", tag: "Devices",
		summary:      "Get the whole state of a system",
		detail:       "Returns the snapshot that a join with `snapshot` sends. The events after its position continue it.",
		responseType: reflect.TypeFor[domain.Snapshot](),
	}, a.getSnapshot)
}

var deviceListing = listing[*domain.Device]{
	of:   func(s *domain.Snapshot) []*domain.Device { return s.Devices },
	id:   func(d *domain.Device) string { return string(d.DeviceID) },
	size: func(d *domain.Device) int { return rowBytes + len(d.Attributes) },
}

func (a *API) listDevices(ctx context.Context, in *listDevicesInput) (*listDevicesOutput, error) {
	st, devices, next, err := readPage(ctx, a, &in.InSystem, &in.ReadParams, &in.PageParams,
		func(ctx context.Context, actor domain.Actor) (*domain.State, bool, error) {
			return a.reads.DevicePage(ctx, actor, in.SystemID, domain.DeviceID(in.After), in.Limit)
		}, deviceListing)
	if err != nil {
		return nil, err
	}
	out := &listDevicesOutput{}
	out.Body.AsOf, out.Body.Next = asOf(st), next
	out.Body.Devices = make([]*deviceView, len(devices))
	for i, d := range devices {
		out.Body.Devices[i] = viewDevice(st, d)
	}
	return out, nil
}

func (a *API) getDevice(ctx context.Context, in *getDeviceInput) (*conditionalOutput[deviceView], error) {
	if _, err := domain.ParseDeviceID(string(in.DeviceID)); err != nil {
		return nil, err
	}
	st, err := a.readRows(ctx, &in.InSystem, &in.ReadParams, domain.Needs{Devices: []domain.DeviceID{in.DeviceID}})
	if err != nil {
		return nil, err
	}
	d := st.Devices[in.DeviceID]
	if d == nil {
		return nil, unknownDevice(in.DeviceID)
	}
	view := viewDevice(st, d)
	return conditional(&in.ConditionalRead, view.tag(), view), nil
}

func unknownDevice(id domain.DeviceID) error {
	return domain.Fail(domain.KindNotFound, domain.CodeUnknownDevice, `there is no device "`+string(id)+`"`)
}

func (a *API) getSnapshot(ctx context.Context, in *snapshotInput) (*huma.StreamResponse, error) {
	state, err := a.readSnapshot(ctx, in)
	if err != nil {
		return nil, err
	}
	releaseWhenSent(ctx, state.Release)
	return streamJSON(func(send func([]byte) bool) {
		_ = sendPieces(state.JSON(), send) && send([]byte("\n"))
	}), nil
}

// readSnapshot returns the present state, which it shares with concurrent requests, or
// folds a past one.
func (a *API) readSnapshot(ctx context.Context, in *snapshotInput) (*snapshot.Snapshot, error) {
	r, err := a.beginRead(ctx, &in.InSystem, &in.ReadParams)
	if err != nil {
		return nil, err
	}
	if !r.past {
		return a.snapshots.Snapshot(ctx, in.SystemID)
	}
	st, err := a.readState(ctx, r, costFold, nil)
	if err != nil {
		return nil, err
	}
	made, err := snapshot.Of(st.Snapshot())
	if err != nil {
		return nil, err
	}
	_, err = a.reserve(ctx, in.SystemID, len(made.JSON()))
	return made, err
}
