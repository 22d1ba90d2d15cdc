package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/plugcast/plugcast/domain"
)

const (
	equipmentListPath = systemPath + "/equipment"
	equipmentPath     = equipmentListPath + "/{equipmentId}"
)

// InEquipment is part of the input of every operation on one piece of equipment.
type InEquipment struct {
	InSystem
	EquipmentID domain.EquipmentID `path:"equipmentId" example:"laser-1"`
}

func (in *InEquipment) authorize(ctx context.Context, action domain.Action) (domain.Actor, error) {
	actor, err := in.InSystem.authorize(ctx, action)
	if err == nil {
		_, err = domain.ParseEquipmentID(string(in.EquipmentID))
	}
	return actor, err
}

// equipmentView is equipment and the plug that feeds it.
type equipmentView struct {
	*domain.Equipment
	DeviceID domain.DeviceID `json:"deviceId,omitempty" doc:"The plug that feeds it"`
}

func viewEquipment(st *domain.State, e *domain.Equipment) *equipmentView {
	holder, _ := st.Holder(e.EquipmentID)
	return &equipmentView{Equipment: e, DeviceID: holder}
}

type listEquipmentInput struct {
	InSystem
	ReadParams
	PageParams
	Retired bool `query:"retired" doc:"Also list retired equipment"`
}

type listEquipmentOutput struct {
	Body struct {
		AsOf
		Equipment []*equipmentView `json:"equipment"`
		Next      string           `json:"next,omitempty" doc:"The after of the next page; absent on the last page"`
	}
}

type getEquipmentInput struct {
	InEquipment
	ReadParams
	ConditionalRead
}

type createEquipmentInput struct {
	InSystem
	CommandInput
	Body struct {
		EquipmentID domain.EquipmentID `json:"equipmentId,omitempty" doc:"The server makes one if it is absent" example:"laser-1"`
		Name        string             `json:"name" example:"Laser 1"`
		Kind        string             `json:"kind,omitempty" example:"laser"`
		Location    string             `json:"location,omitempty" example:"room 3"`
		Attributes  json.RawMessage    `json:"attributes,omitempty" doc:"An object of your own, at most 4 KiB"`
	}
}

type updateEquipmentInput struct {
	InEquipment
	ConditionalWrite
	CommandInput
	Body struct {
		Name       domain.Optional[string] `json:"name,omitzero" nullable:"false"`
		Kind       domain.Optional[string] `json:"kind,omitzero" doc:"null removes it"`
		Location   domain.Optional[string] `json:"location,omitzero" doc:"null removes it"`
		Attributes json.RawMessage         `json:"attributes,omitempty" doc:"Replaces the whole object"`
	}
}

type retireEquipmentInput struct {
	InEquipment
	ConditionalWrite
	CommandInput
	Reason string `query:"reason" maxLength:"256" doc:"Kept in the event"`
}

type equipmentOutput struct {
	Status int
	Replay
	ETag string `header:"ETag" doc:"The equipment's quoted position, for If-Match in the next command"`
	Body struct {
		CommandAnswer
		EquipmentID domain.EquipmentID `json:"equipmentId"`
		Equipment   *equipmentView     `json:"equipment,omitempty" doc:"The equipment after the command; only with wait"`
	}
}

func (a *API) registerEquipment() {
	const tag = "Equipment"
	register(a, operation{
		id: "listEquipment", cost: costPage, method: http.MethodGet, path: equipmentListPath, tag: tag, summary: "List the equipment of a system",
	}, a.listEquipment)
	register(a, operation{
		id: "getEquipment", method: http.MethodGet, path: equipmentPath, tag: tag, summary: "Get a piece of equipment",
		errors: []int{404},
	}, a.getEquipment)
	register(a, operation{
		id: "createEquipment", method: http.MethodPost, path: equipmentListPath, tag: tag, status: http.StatusAccepted,
		summary: "Add a piece of equipment", errors: []int{409, 413, 415, 422, 504},
	}, a.createEquipment)
	register(a, operation{
		id: "updateEquipment", method: http.MethodPatch, path: equipmentPath, tag: tag, status: http.StatusAccepted,
		summary: "Change the fields that are present", errors: []int{404, 412, 413, 415, 422, 504},
	}, a.updateEquipment)
	register(a, operation{
		id: "retireEquipment", method: http.MethodDelete, path: equipmentPath, tag: tag, status: http.StatusAccepted,
		summary: "Retire a piece of equipment", detail: "Releases its plug. The id cannot be used again.",
		errors: []int{404, 412, 422, 504},
	}, a.retireEquipment)
}

func (a *API) listEquipment(ctx context.Context, in *listEquipmentInput) (*listEquipmentOutput, error) {
	list := listing[*domain.Equipment]{
		of: func(s *domain.Snapshot) []*domain.Equipment {
			return slices.DeleteFunc(s.Equipment, func(e *domain.Equipment) bool { return e.Retired && !in.Retired })
		},
		id:   func(e *domain.Equipment) string { return string(e.EquipmentID) },
		size: func(e *domain.Equipment) int { return rowBytes + len(e.Attributes) },
	}
	st, page, next, err := readPage(ctx, a, &in.InSystem, &in.ReadParams, &in.PageParams,
		func(ctx context.Context, actor domain.Actor) (*domain.State, bool, error) {
			return a.reads.EquipmentPage(ctx, actor, in.SystemID, domain.EquipmentID(in.After), in.Limit, in.Retired)
		}, list)
	if err != nil {
		return nil, err
	}
	out := &listEquipmentOutput{}
	out.Body.AsOf, out.Body.Next = asOf(st), next
	out.Body.Equipment = make([]*equipmentView, len(page))
	for i, e := range page {
		out.Body.Equipment[i] = viewEquipment(st, e)
	}
	return out, nil
}

// getEquipment also returns retired equipment, because history refers to it.
func (a *API) getEquipment(ctx context.Context, in *getEquipmentInput) (*conditionalOutput[equipmentView], error) {
	if _, err := domain.ParseEquipmentID(string(in.EquipmentID)); err != nil {
		return nil, err
	}
	needs := domain.Needs{Equipment: []domain.EquipmentID{in.EquipmentID}}
	st, err := a.readRows(ctx, &in.InSystem, &in.ReadParams, needs)
	if err != nil {
		return nil, err
	}
	e := st.Equipment[in.EquipmentID]
	if e == nil {
		return nil, domain.Fail(domain.KindNotFound, domain.CodeUnknownEquipment,
			`there is no equipment "`+string(in.EquipmentID)+`"`)
	}
	return conditional(&in.ConditionalRead, entityTag(e.Position), viewEquipment(st, e)), nil
}

func (a *API) createEquipment(ctx context.Context, in *createEquipmentInput) (*equipmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	r, err := in.request(ctx, "createEquipment", in.SystemID, in.Body)
	if err != nil {
		return nil, err
	}
	id, err := idOrNew(ctx, &in.Idempotent, in.SystemID, in.Body.EquipmentID)
	if err != nil {
		return nil, err
	}
	receipt, err := a.service.Execute(ctx, in.SystemID, domain.RegisterEquipment{EquipmentRegistered: domain.EquipmentRegistered{
		EquipmentID: id, Name: in.Body.Name, Kind: in.Body.Kind, Location: in.Body.Location, Attributes: in.Body.Attributes,
	}}, r)
	if err != nil {
		return nil, err
	}
	return a.answerEquipment(ctx, in.SystemID, id, &in.WaitParam, receipt)
}

func (a *API) updateEquipment(ctx context.Context, in *updateEquipmentInput) (*equipmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	match, err := in.ConditionalWrite.position()
	if err != nil {
		return nil, err
	}
	c := domain.UpdateEquipment{IfMatch: match, EquipmentUpdated: domain.EquipmentUpdated{
		EquipmentID: in.EquipmentID, Name: in.Body.Name, Kind: in.Body.Kind, Location: in.Body.Location, Attributes: in.Body.Attributes,
	}}
	receipt, err := a.execute(ctx, "updateEquipment", in.SystemID, c, &in.CommandInput)
	if err != nil {
		return nil, err
	}
	return a.answerEquipment(ctx, in.SystemID, in.EquipmentID, &in.WaitParam, receipt)
}

func (a *API) retireEquipment(ctx context.Context, in *retireEquipmentInput) (*equipmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	match, err := in.ConditionalWrite.position()
	if err != nil {
		return nil, err
	}
	c := domain.RetireEquipment{IfMatch: match, EquipmentRetired: domain.EquipmentRetired{EquipmentID: in.EquipmentID, Reason: in.Reason}}
	receipt, err := a.execute(ctx, "retireEquipment", in.SystemID, c, &in.CommandInput)
	if err != nil {
		return nil, err
	}
	return a.answerEquipment(ctx, in.SystemID, in.EquipmentID, &in.WaitParam, receipt)
}

// answerEquipment answers a command on a piece of equipment.
func (a *API) answerEquipment(
	ctx context.Context, system domain.SystemID, id domain.EquipmentID, w *WaitParam, receipt domain.Receipt,
) (*equipmentOutput, error) {
	out := &equipmentOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer, out.Body.EquipmentID = commandAnswer(receipt), id
	st, err := a.stateAfter(ctx, system, domain.Needs{Equipment: []domain.EquipmentID{id}}, receipt, w)
	if err != nil || st == nil {
		return out, err
	}
	out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	if now := st.Equipment[id]; now != nil {
		out.Body.Equipment, out.ETag = viewEquipment(st, now), entityTag(now.Position)
	}
	return out, nil
}
