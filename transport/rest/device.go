package rest

import (
	"context"
	"net/http"

	"github.com/plugcast/plugcast/domain"
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

type snapshotOutput struct {
	Body *domain.Snapshot
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
	}, a.getSnapshot)
}

func (a *API) listDevices(ctx context.Context, in *listDevicesInput) (*listDevicesOutput, error) {
	st, err := a.stateOf(ctx, &in.InSystem, &in.Freshness, &in.Moment)
	if err != nil {
		return nil, err
	}
	devices, next := cut(&in.Paged, st.Snapshot().Devices, func(d *domain.Device) string { return string(d.DeviceID) })
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
	view, err := a.readDevice(ctx, in)
	if err != nil {
		return nil, err
	}
	tag := view.tag()
	out := &getDeviceOutput{Status: http.StatusOK, ETag: tag, Body: view}
	if in.matches(tag) {
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, nil
}

// readDevice reads single rows for the present, and folds the past.
func (a *API) readDevice(ctx context.Context, in *getDeviceInput) (*deviceView, error) {
	if in.At != "" {
		st, err := a.stateOf(ctx, &in.InSystem, &in.Freshness, &in.Moment)
		if err != nil {
			return nil, err
		}
		if st.Devices[in.DeviceID] == nil {
			return nil, domain.Fail(domain.KindNotFound, domain.CodeUnknownDevice,
				`there was no device "`+string(in.DeviceID)+`" at that time`)
		}
		return viewDevice(st, st.Devices[in.DeviceID]), nil
	}
	actor, err := in.authorize(ctx, domain.ActionRead)
	if err == nil {
		err = a.caughtUp(ctx, in.SystemID, &in.Freshness)
	}
	if err != nil {
		return nil, err
	}
	device, err := a.reads.Device(ctx, actor, in.SystemID, in.DeviceID)
	if err != nil {
		return nil, err
	}
	assigned, err := a.reads.Assignment(ctx, actor, in.SystemID, in.DeviceID)
	if err != nil && !domain.HasCode(err, domain.CodeNotAssigned) {
		return nil, err
	}
	rows := domain.NewState(in.SystemID) // as much of it as the view is about
	if assigned != nil {
		rows.Assignments[in.DeviceID] = assigned
	}
	if device.ConnectionID != nil {
		connection, err := a.reads.Connection(ctx, actor, in.SystemID, *device.ConnectionID)
		if err != nil && !domain.HasCode(err, domain.CodeUnknownConnection) {
			return nil, err
		}
		if connection != nil {
			rows.Connections[*device.ConnectionID] = connection
		}
	}
	return viewDevice(rows, device), nil
}

func (a *API) getSnapshot(ctx context.Context, in *snapshotInput) (*snapshotOutput, error) {
	st, err := a.stateOf(ctx, &in.InSystem, &in.Freshness, &in.Moment)
	if err != nil {
		return nil, err
	}
	return &snapshotOutput{Body: st.Snapshot()}, nil
}
