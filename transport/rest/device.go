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

// deviceView is a device and what it feeds.
type deviceView struct {
	*domain.Device
	Assignment *domain.Assignment `json:"assignment,omitempty" doc:"The equipment that the plug feeds"`
	Stale      bool               `json:"stale,omitempty" doc:"Nothing new can be known of it, because its connection is stopped or down; it is neither offline nor switched off for that"`

	connection *domain.Connection // that it is behind, if there is one
}

func viewDevice(st *domain.State, d *domain.Device) *deviceView {
	view := &deviceView{Device: d, Assignment: st.Assignments[d.DeviceID], Stale: st.IsStale(d)}
	if d.ConnectionID != nil {
		view.connection = st.Connections[*d.ConnectionID]
	}
	return view
}

// tag is the ETag of all that the view shows.
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

// AsOf says to which moment of the system's history a read belongs.
type AsOf struct {
	SystemID domain.SystemID `json:"systemId"`
	Position domain.Position `json:"position" doc:"Of the last event that is in it"`
	Seq      uint64          `json:"seq" doc:"How many events of the system are in it"`
}

func stamp(st *domain.State) AsOf {
	return AsOf{SystemID: st.SystemID, Position: st.Cursor.Position, Seq: st.Cursor.Seq}
}

type listDevicesInput struct {
	InSystem
	Freshness
	Moment
	Paged
}

type listDevicesOutput struct {
	Body struct {
		AsOf
		Devices []*deviceView `json:"devices"`
		Next    string        `json:"next,omitempty" doc:"Pass it as after for the next page; absent on the last"`
	}
}

type getDeviceInput struct {
	InSystem
	DeviceID domain.DeviceID `path:"deviceId" example:"shellyplugsg3-8cbfea9a1b2c"`
	Freshness
	Moment
	Revalidated
}

type getDeviceOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"Changes with the device, its assignment and its connection"`
	Body   *deviceView
}

type snapshotInput struct {
	InSystem
	Freshness
	Moment
}

func (a *API) registerDevices() {
	register(a, operation{
		id: "listDevices", method: http.MethodGet, path: systemPath + "/devices", tag: "Devices",
		summary: "List the devices of a system",
	}, a.listDevices)
	register(a, operation{
		id: "getDevice", method: http.MethodGet, path: devicePath, tag: "Devices",
		summary: "Get a device with its assignment", errors: []int{404},
	}, a.getDevice)
	register(a, operation{
		id: "getSnapshot", method: http.MethodGet, path: systemPath + "/snapshot", tag: "Devices",
		summary: "Get everything that is true of a system",
		detail:  "The same that a join with `snapshot` sends. Events after its position continue it.",
		answer:  reflect.TypeFor[domain.Snapshot](),
	}, a.getSnapshot)
}

var devicesListed = listed[*domain.Device]{
	of:   func(s *domain.Snapshot) []*domain.Device { return s.Devices },
	id:   func(d *domain.Device) string { return string(d.DeviceID) },
	size: func(d *domain.Device) int { return rowBytes + len(d.Attributes) },
}

func (a *API) listDevices(ctx context.Context, in *listDevicesInput) (*listDevicesOutput, error) {
	st, devices, next, err := pageOf(ctx, a, &in.InSystem, &in.Freshness, &in.Moment, &in.Paged,
		func(ctx context.Context, actor domain.Actor) (*domain.State, bool, error) {
			return a.reads.DevicePage(ctx, actor, in.SystemID, domain.DeviceID(in.After), in.Limit, domain.Position{})
		}, devicesListed)
	if err != nil {
		return nil, err
	}
	out := &listDevicesOutput{}
	out.Body.AsOf, out.Body.Next = stamp(st), next
	out.Body.Devices = make([]*deviceView, len(devices))
	for i, d := range devices {
		out.Body.Devices[i] = viewDevice(st, d)
	}
	return out, nil
}

func (a *API) getDevice(ctx context.Context, in *getDeviceInput) (*getDeviceOutput, error) {
	if _, err := domain.ParseDeviceID(string(in.DeviceID)); err != nil {
		return nil, err
	}
	st, err := a.partOf(ctx, &in.InSystem, &in.Freshness, &in.Moment, domain.Needs{Devices: []domain.DeviceID{in.DeviceID}})
	if err != nil {
		return nil, err
	}
	d := st.Devices[in.DeviceID]
	if d == nil {
		return nil, unknownDevice(in.DeviceID)
	}
	view := viewDevice(st, d)
	tag := view.tag()
	out := &getDeviceOutput{Status: http.StatusOK, ETag: tag, Body: view}
	if in.matches(tag) {
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, nil
}

func unknownDevice(id domain.DeviceID) error {
	return domain.Fail(domain.KindNotFound, domain.CodeUnknownDevice, `there is no device "`+string(id)+`"`)
}

func (a *API) getSnapshot(ctx context.Context, in *snapshotInput) (*huma.StreamResponse, error) {
	state, err := a.readSnapshot(ctx, in)
	if err != nil {
		return nil, err
	}
	untilSent(ctx, state.Release)
	return streamed(func(send func([]byte) bool) {
		_ = sendAll(state.JSON(), send) && send([]byte("\n"))
	}), nil
}

// readSnapshot shares the present state with concurrent requests, and folds the past.
func (a *API) readSnapshot(ctx context.Context, in *snapshotInput) (*snapshot.Snapshot, error) {
	r, err := a.begin(ctx, &in.InSystem, &in.Freshness, &in.Moment)
	if err != nil {
		return nil, err
	}
	if !r.past {
		return a.snapshots.Snapshot(ctx, in.SystemID)
	}
	st, err := a.stateOf(ctx, r, costFold, nil)
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
