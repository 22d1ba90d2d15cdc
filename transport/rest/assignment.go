package rest

import (
	"context"
	"net/http"

	"github.com/plugcast/plugcast/domain"
)

const assignmentPath = devicePath + "/assignment"

// InDevice is part of the input of every operation on one device.
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
	FreshnessParam
	ConditionalRead
}

type assignInput struct {
	InDevice
	Move        bool   `query:"move" doc:"Take the equipment from the plug that feeds it now"`
	IfNoneMatch string `header:"If-None-Match" enum:"*" doc:"Fail with 412 if the plug is assigned already"`
	ConditionalWrite
	CommandInput
	Body struct {
		EquipmentID domain.EquipmentID `json:"equipmentId" example:"laser-1"`
	}
}

type releaseInput struct {
	InDevice
	ConditionalWrite
	CommandInput
}

type assignmentOutput struct {
	Status int
	Replay
	ETag string `header:"ETag" doc:"The assignment's quoted position, for If-Match in the next command"`
	Body struct {
		CommandAnswer
		Assignment *domain.Assignment `json:"assignment,omitempty" doc:"The assignment after the command; only with wait"`
	}
}

func (a *API) registerAssignments() {
	register(a, operation{
		id: "getAssignment", method: http.MethodGet, path: assignmentPath, tag: "Assignments",
		summary: "Get a plug's assignment to equipment", errors: []int{404},
	}, a.getAssignment)
	register(a, operation{
		id: "assign", method: http.MethodPut, path: assignmentPath, tag: "Assignments", status: http.StatusAccepted,
		summary: "Assign a plug to equipment",
		detail: "Replaces the plug's former assignment. If another plug feeds the equipment, the answer is 409 and names that plug; " +
			"`?move=true` takes the equipment from it.",
		errors: []int{404, 409, 412, 413, 415, 422, 504},
	}, a.assign)
	register(a, operation{
		id: "release", method: http.MethodDelete, path: assignmentPath, tag: "Assignments", status: http.StatusAccepted,
		summary: "Release a plug from its equipment", errors: []int{404, 412, 422, 504},
	}, a.release)
}

func (a *API) getAssignment(ctx context.Context, in *getAssignmentInput) (*conditionalOutput[domain.Assignment], error) {
	if _, err := domain.ParseDeviceID(string(in.DeviceID)); err != nil {
		return nil, err
	}
	needs := domain.Needs{Devices: []domain.DeviceID{in.DeviceID}}
	st, err := a.readRows(ctx, &in.InSystem, &ReadParams{FreshnessParam: in.FreshnessParam}, needs)
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
	return conditional(&in.ConditionalRead, entityTag(assigned.Position), assigned), nil
}

func (a *API) assign(ctx context.Context, in *assignInput) (*assignmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	if _, err := domain.ParseEquipmentID(string(in.Body.EquipmentID)); err != nil {
		return nil, err
	}
	match, err := in.ConditionalWrite.position()
	if err != nil {
		return nil, err
	}
	if in.IfNoneMatch != "" {
		if match != nil {
			return nil, invalidRequest("If-Match and If-None-Match exclude each other")
		}
		match = &domain.Position{} // the position that stands for no assignment
	}
	c := domain.AssignPlug{DeviceID: in.DeviceID, EquipmentID: in.Body.EquipmentID, Move: in.Move, IfMatch: match}
	receipt, err := a.execute(ctx, "assign", in.SystemID, c, &in.CommandInput)
	if err != nil {
		return nil, err
	}
	return a.answerAssignment(ctx, &in.InDevice, &in.WaitParam, receipt)
}

func (a *API) release(ctx context.Context, in *releaseInput) (*assignmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	match, err := in.ConditionalWrite.position()
	if err != nil {
		return nil, err
	}
	receipt, err := a.execute(ctx, "release", in.SystemID, domain.ReleasePlug{DeviceID: in.DeviceID, IfMatch: match}, &in.CommandInput)
	if err != nil {
		return nil, err
	}
	return a.answerAssignment(ctx, &in.InDevice, &in.WaitParam, receipt)
}

// answerAssignment answers a command on a plug's assignment.
func (a *API) answerAssignment(ctx context.Context, in *InDevice, w *WaitParam, receipt domain.Receipt) (*assignmentOutput, error) {
	out := &assignmentOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer = commandAnswer(receipt)
	st, err := a.stateAfter(ctx, in.SystemID, domain.Needs{Devices: []domain.DeviceID{in.DeviceID}}, receipt, w)
	if err != nil || st == nil {
		return out, err
	}
	out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	if now := st.Assignments[in.DeviceID]; now != nil {
		out.Body.Assignment, out.ETag = now, entityTag(now.Position)
	}
	return out, nil
}
