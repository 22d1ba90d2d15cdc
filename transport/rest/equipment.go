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
	Freshness
	Moment
	Paged
	Retired bool `query:"retired" doc:"Also list equipment that is out of use"`
}

type listEquipmentOutput struct {
	Body struct {
		AsOf
		Equipment []*equipmentView `json:"equipment"`
		Next      string           `json:"next,omitempty" doc:"Pass it as after for the next page; absent on the last"`
	}
}

type getEquipmentInput struct {
	InEquipment
	Freshness
	Moment
	Revalidated
}

type getEquipmentOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"The quoted position of the equipment, for If-Match"`
	Body   *equipmentView
}

type createEquipmentInput struct {
	InSystem
	CommandInput
	Body struct {
		EquipmentID domain.EquipmentID `json:"equipmentId,omitempty" doc:"Made when absent" example:"laser-1"`
		Name        string             `json:"name" example:"Laser 1"`
		Kind        string             `json:"kind,omitempty" example:"laser"`
		Location    string             `json:"location,omitempty" example:"room 3"`
		Attributes  json.RawMessage    `json:"attributes,omitempty" doc:"An object of your own, at most 4 KiB"`
	}
}

type updateEquipmentInput struct {
	InEquipment
	Conditional
	CommandInput
	Body struct {
		Name       domain.Optional[string] `json:"name,omitzero" nullable:"false"`
		Kind       domain.Optional[string] `json:"kind,omitzero" doc:"null takes it away"`
		Location   domain.Optional[string] `json:"location,omitzero" doc:"null takes it away"`
		Attributes json.RawMessage         `json:"attributes,omitempty" doc:"Replaces the whole object"`
	}
}

type retireEquipmentInput struct {
	InEquipment
	Conditional
	CommandInput
	Reason string `query:"reason" maxLength:"256" doc:"Kept in the event"`
}

type equipmentOutput struct {
	Status int
	Replay
	ETag string `header:"ETag" doc:"For If-Match in the next command on the same thing"`
	Body struct {
		CommandAnswer
		EquipmentID domain.EquipmentID `json:"equipmentId"`
		Equipment   *equipmentView     `json:"equipment,omitempty" doc:"As it is now; only when the answer waited"`
	}
}

func (a *API) registerEquipment() {
	const tag = "Equipment"
	register(a, operation{
		id: "listEquipment", method: http.MethodGet, path: equipmentListPath, tag: tag, summary: "List the equipment of a system",
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
		summary: "Take a piece of equipment out of use", detail: "Its plug is released. The id is not used again.",
		errors: []int{404, 412, 422, 504},
	}, a.retireEquipment)
}

func (a *API) listEquipment(ctx context.Context, in *listEquipmentInput) (*listEquipmentOutput, error) {
	list := listed[*domain.Equipment]{
		of: func(s *domain.Snapshot) []*domain.Equipment {
			return slices.DeleteFunc(s.Equipment, func(e *domain.Equipment) bool { return e.Retired && !in.Retired })
		},
		id:   func(e *domain.Equipment) string { return string(e.EquipmentID) },
		size: func(e *domain.Equipment) int { return rowBytes + len(e.Attributes) },
	}
	st, some, next, err := pageOf(ctx, a, &in.InSystem, &in.Freshness, &in.Moment, &in.Paged,
		func(ctx context.Context, actor domain.Actor) (*domain.State, bool, error) {
			return a.reads.EquipmentPage(ctx, actor, in.SystemID, domain.EquipmentID(in.After), in.Limit, in.Retired, domain.Position{})
		}, list)
	if err != nil {
		return nil, err
	}
	out := &listEquipmentOutput{}
	out.Body.AsOf, out.Body.Next = stamp(st), next
	out.Body.Equipment = make([]*equipmentView, len(some))
	for i, e := range some {
		out.Body.Equipment[i] = viewEquipment(st, e)
	}
	return out, nil
}

// getEquipment also shows equipment that is retired, for the sake of history.
func (a *API) getEquipment(ctx context.Context, in *getEquipmentInput) (*getEquipmentOutput, error) {
	if _, err := domain.ParseEquipmentID(string(in.EquipmentID)); err != nil {
		return nil, err
	}
	st, err := a.partOf(ctx, &in.InSystem, &in.Freshness, &in.Moment, domain.Needs{Equipment: []domain.EquipmentID{in.EquipmentID}})
	if err != nil {
		return nil, err
	}
	e := st.Equipment[in.EquipmentID]
	if e == nil {
		return nil, domain.Fail(domain.KindNotFound, domain.CodeUnknownEquipment, `there is no equipment "`+string(in.EquipmentID)+`"`)
	}
	out := &getEquipmentOutput{Status: http.StatusOK, ETag: entityTag(e.Position), Body: viewEquipment(st, e)}
	if in.matches(out.ETag) {
		out.Status, out.Body = http.StatusNotModified, nil
	}
	return out, nil
}

func (a *API) createEquipment(ctx context.Context, in *createEquipmentInput) (*equipmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	r, err := in.request(ctx, "createEquipment", in.SystemID, in.Body)
	if err != nil {
		return nil, err
	}
	id := in.Body.EquipmentID
	if id == "" {
		made, err := in.newID(ctx, in.SystemID)
		if err != nil {
			return nil, err
		}
		id = domain.EquipmentID(made)
	}
	receipt, err := a.service.Execute(ctx, in.SystemID, domain.RegisterEquipment{EquipmentRegistered: domain.EquipmentRegistered{
		EquipmentID: id, Name: in.Body.Name, Kind: in.Body.Kind, Location: in.Body.Location, Attributes: in.Body.Attributes,
	}}, r)
	if err != nil {
		return nil, err
	}
	return a.equipped(ctx, in.SystemID, id, &in.Waits, receipt)
}

func (a *API) updateEquipment(ctx context.Context, in *updateEquipmentInput) (*equipmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	match, err := in.Conditional.position()
	if err != nil {
		return nil, err
	}
	c := domain.UpdateEquipment{IfMatch: match, EquipmentUpdated: domain.EquipmentUpdated{
		EquipmentID: in.EquipmentID, Name: in.Body.Name, Kind: in.Body.Kind, Location: in.Body.Location, Attributes: in.Body.Attributes,
	}}
	r, err := in.request(ctx, "updateEquipment", in.SystemID, c)
	if err != nil {
		return nil, err
	}
	receipt, err := a.service.Execute(ctx, in.SystemID, c, r)
	if err != nil {
		return nil, err
	}
	return a.equipped(ctx, in.SystemID, in.EquipmentID, &in.Waits, receipt)
}

func (a *API) retireEquipment(ctx context.Context, in *retireEquipmentInput) (*equipmentOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	match, err := in.Conditional.position()
	if err != nil {
		return nil, err
	}
	c := domain.RetireEquipment{IfMatch: match, EquipmentRetired: domain.EquipmentRetired{EquipmentID: in.EquipmentID, Reason: in.Reason}}
	r, err := in.request(ctx, "retireEquipment", in.SystemID, c)
	if err != nil {
		return nil, err
	}
	receipt, err := a.service.Execute(ctx, in.SystemID, c, r)
	if err != nil {
		return nil, err
	}
	return a.equipped(ctx, in.SystemID, in.EquipmentID, &in.Waits, receipt)
}

func (a *API) equipped(ctx context.Context, system domain.SystemID, id domain.EquipmentID, w *Waits, receipt domain.Receipt) (*equipmentOutput, error) {
	out := &equipmentOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer, out.Body.EquipmentID = answer(receipt), id
	st, err := a.settled(ctx, system, domain.Needs{Equipment: []domain.EquipmentID{id}}, receipt, w)
	if err != nil || st == nil {
		return out, err
	}
	out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	if now := st.Equipment[id]; now != nil {
		out.Body.Equipment, out.ETag = viewEquipment(st, now), entityTag(now.Position)
	}
	return out, nil
}
