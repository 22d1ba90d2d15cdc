package rest

import (
	"context"
	"net/http"

	"github.com/plugcast/plugcast/domain"
)

type correctEnergyInput struct {
	InDevice
	CommandInput
	Body struct {
		EnergyWh float64 `json:"energyWh" minimum:"0" maximum:"1000000000000" doc:"The new lifetime total" example:"100954.03"`
		Reason   string  `json:"reason,omitempty" maxLength:"256" doc:"Kept in the event" example:"read from the meter"`
	}
}

type correctEnergyOutput struct {
	Status int
	Replay
	ETag string `header:"ETag" doc:"Covers the device, its assignment and its connection"`
	Body struct {
		CommandAnswer
		DeviceID domain.DeviceID `json:"deviceId"`
		Device   *deviceView     `json:"device,omitempty" doc:"The device after the correction; only with wait"`
	}
}

func (a *API) registerEnergy() {
	register(a, operation{
		id: "correctEnergy", method: http.MethodPost, path: devicePath + "/energy-correction", tag: "Devices",
		status: http.StatusAccepted, summary: "Correct a device's lifetime energy",
		detail: "Sets the total. Every process adds the device's further consumption to it, also after restarts. The device's " +
			"`energyOffsetWh` is the sum of its corrections.",
		errors: []int{404, 413, 415, 422, 504},
	}, a.correctEnergy)
}

func (a *API) correctEnergy(ctx context.Context, in *correctEnergyInput) (*correctEnergyOutput, error) {
	if _, err := in.authorize(ctx, domain.ActionCommand); err != nil {
		return nil, err
	}
	c := domain.CorrectEnergy{DeviceID: in.DeviceID, EnergyWh: in.Body.EnergyWh, Reason: in.Body.Reason}
	receipt, err := a.execute(ctx, "correctEnergy", in.SystemID, c, &in.CommandInput)
	if err != nil {
		return nil, err
	}
	out := &correctEnergyOutput{Status: http.StatusAccepted, Replay: replayOf(receipt.Replayed)}
	out.Body.CommandAnswer, out.Body.DeviceID = commandAnswer(receipt), in.DeviceID
	st, err := a.stateAfter(ctx, in.SystemID, domain.Needs{Devices: []domain.DeviceID{in.DeviceID}}, receipt, &in.WaitParam)
	if err != nil || st == nil {
		return out, err
	}
	out.Status, out.Body.Outcome = http.StatusOK, domain.OutcomeCompleted
	if now := st.Devices[in.DeviceID]; now != nil {
		out.Body.Device = viewDevice(st, now)
		out.ETag = out.Body.Device.tag()
	}
	return out, nil
}
