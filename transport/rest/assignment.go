package rest

import (
	"context"
	"net/http"

	"github.com/plugcast/plugcast/domain"
)

const assignmentPath = devicePath + "/assignment"

type InDevice struct {
	InSystem
	DeviceID domain.DeviceID `path:"deviceId" example:"shellyplugsg3-8cbfea9a1b2c"`
}

func (in *InDevice) authorize(ctx context.Context, action domain.Action) (domain.Actor, error) {
	actor, err := in.InSystem.authorize(ctx, action)
	if err == nil {
		_, err = domain.ParseDeviceID(string(in.DeviceID))
	}
	return actor, err
}

type getAssignmentInput struct {
	InDevice
	Freshness
	Revalidated
}

type getAssignmentOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"The quoted position of the assignment, for If-Match"`
	Body   *domain.Assignment
}

type assignInput struct {
	InDevice
	Move        bool   `query:"move" doc:"Take the equipment over from the plug that feeds it now"`
	IfNoneMatch string `header:"If-None-Match" enum:"*" doc:"Only if the plug is not assigned; otherwise 412"`
	Conditional
	CommandInput
	Body struct {
		EquipmentID domain.EquipmentID `json:"equipmentId" example:"laser-1"`
	}
}

type releaseInput struct {
	InDevice
	Conditional
	CommandInput
}

type assignmentOutput struct {
	Status int
	Replay
	ETag string `header:"ETag" doc:"For If-Match in the next command on the same thing"`
	Body struct {
		CommandAnswer
		Assignment *domain.Assignment `json:"assignment,omitempty" doc:"What the plug feeds now; only when the answer waited"`
	}
}

func (a *API) registerAssignments() {
	register(a, operation{
		id: "getAssignment", method: http.MethodGet, path: assignmentPath, tag: "Assignments",
		summary: "Get which equipment a plug feeds", errors: []int{404},
	}, a.getAssignment)
	register(a, operation{
		id: "assign", method: http.MethodPut, path: assignmentPath, tag: "Assignments", status: http.StatusAccepted,
		summary: "Assign a plug to equipment",
		detail: "Replaces what the plug fed before. Equipment that another plug feeds is a conflict, which says " +
			"the holder; `?move=true` takes it over.",
		errors: []int{404, 409, 412, 413, 415, 422, 504},
	}, a.assign)
	register(a, operation{
		id: "release", method: http.MethodDelete, path: assignmentPath, tag: "Assignments", status: http.StatusAccepted,
		summary: "Release a plug from its equipment", errors: []int{404, 412, 422, 504},
	}, a.release)
}

func (a *API) getAssignment(ctx context.Context, in *getAssignmentInput) (*getAssignmentOutput, error) {
	if _, err := domain.ParseDeviceID(string(in.DeviceID)); err != nil {
		return nil, err
	}
	st, err := a.partOf(ctx, &in.InSystem, &in.Freshness, &Moment{}, domain.Needs{Devices: []domain.DeviceID{in.DeviceID}})
	if err != nil {
		return nil, err
	}
	assigned := st.Assignments[in.DeviceID]
	switch {
	case st.Devices[in.DeviceID] == nil:
		return nil, unknownDevice(in.DeviceID)
	case assigned == nil:
		return nil, domain.Fail(domain.KindNotFound, domain.CodeNotAssigned,
			`device "`+string(in.DeviceID)+`" is not assigned to any equipment`)
	}
	out := &getAssignmentOutput{Status: http.StatusOK, ETag: entityTag(assigned.Position), Body: assigned}
	if in.matches(out.ETag) {
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, nil
}

func (a *API) assign(ctx context.Context, in *assignInput) (*assignmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	if _, err := domain.ParseEquipmentID(string(in.Body.EquipmentID)); err != nil {
		return nil, err
	}
	match, err := in.Conditional.position()
	if err != nil {
		return nil, err
	}
	if in.IfNoneMatch != "" {
		if match != nil {
			return nil, invalidRequest("If-Match and If-None-Match exclude each other")
		}
		match = &domain.Position{} // the position of no assignment
	}
	c := domain.AssignPlug{DeviceID: in.DeviceID, EquipmentID: in.Body.EquipmentID, Move: in.Move, IfMatch: match}
	r, err := in.request(ctx, "assign", in.SystemID, c)
	if err != nil {
		return nil, err
	}
	receipt, err := a.service.Execute(ctx, in.SystemID, c, r)
	if err != nil {
		return nil, err
	}
	return a.assigned(ctx, &in.InDevice, &in.Waits, receipt)
}

func (a *API) release(ctx context.Context, in *releaseInput) (*assignmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	match, err := in.Conditional.position()
	if err != nil {
		return nil, err
	}
	c := domain.ReleasePlug{DeviceID: in.DeviceID, IfMatch: match}
	r, err := in.request(ctx, "release", in.SystemID, c)
	if err != nil {
		return nil, err
	}
	receipt, err := a.service.Execute(ctx, in.SystemID, c, r)
	if err != nil {
		return nil, err
	}
	return a.assigned(ctx, &in.InDevice, &in.Waits, receipt)
}

func (a *API) assigned(ctx context.Context, in *InDevice, w *Waits, receipt domain.Receipt) (*assignmentOutput, error) {
	out := &assignmentOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer = answer(receipt)
	st, err := a.settled(ctx, in.SystemID, domain.Needs{Devices: []domain.DeviceID{in.DeviceID}}, receipt, w)
	if err != nil || st == nil {
		return out, err
	}
	out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	if now := st.Assignments[in.DeviceID]; now != nil {
		out.Body.Assignment, out.ETag = now, entityTag(now.Position)
	}
	return out, nil
}
