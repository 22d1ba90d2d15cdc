package cloud

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// relayRequest encodes a request to switch a relay (RTE). Its trid is a number. It
// cannot ask the device to switch back later.
func relayRequest(trid int64, device domain.DeviceID, channel int, on bool) []byte {
	type params struct {
		Turn string `json:"turn"`
		ID   int    `json:"id"`
	}
	type data struct {
		Cmd    string `json:"cmd"`
		Params params `json:"params"`
	}
	turn := "off"
	if on {
		turn = "on"
	}
	return encode(struct {
		Event    string `json:"event"`
		Trid     int64  `json:"trid"`
		DeviceID string `json:"deviceId"`
		Data     data   `json:"data"`
	}{"Shelly:CommandRequest", trid, socketText(device), data{"relay", params{turn, channel}}})
}

// switchSetRequest encodes a call of Switch.Set on a device of the second generation or
// later. The vendor's own client makes such calls, without documentation (US). Its
// trid is a string.
func switchSetRequest(trid int64, device domain.DeviceID, channel int, on bool, toggleAfter time.Duration) []byte {
	type params struct {
		ID          int     `json:"id"`
		On          bool    `json:"on"`
		ToggleAfter float64 `json:"toggle_after,omitempty"` // s
	}
	return encode(struct {
		Event    string `json:"event"`
		Trid     string `json:"trid"`
		DeviceID string `json:"deviceId"`
		Method   string `json:"method"`
		Params   params `json:"params"`
	}{"Shelly:JrpcRequest", strconv.FormatInt(trid, 10), socketText(device), "Switch.Set",
		params{channel, on, toggleAfter.Seconds()}})
}

func encode(v any) []byte {
	raw, _ := json.Marshal(v) // plain structs always marshal
	return raw
}
