package cloud

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

// allStatus is the state of all devices of an account.
type allStatus struct {
	devices []deviceStatus
	refused int // entries that cannot be decoded: nothing is known of their devices
}

// deviceStatus is one entry of it.
type deviceStatus struct {
	id     wireID
	gen    string
	online domain.Optional[bool] // as the cloud says; absent when it does not
	status status.Document
}

// decodeAllStatus decodes the answer of /device/all_status. It counts an entry that it
// cannot decode, and keeps the others.
func decodeAllStatus(body []byte) (allStatus, error) {
	var answer struct {
		IsOK bool `json:"isok"`
		Data struct {
			Devices json.RawMessage `json:"devices_status"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return allStatus{}, fmt.Errorf("cloud: all_status: the answer is not the expected JSON: %w", err)
	}
	if !answer.IsOK || len(answer.Data.Devices) == 0 {
		return allStatus{}, errors.New("cloud: all_status: the answer has no states")
	}
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(answer.Data.Devices, &entries); err != nil {
		var none []json.RawMessage // an account without devices: [] for {}
		if json.Unmarshal(answer.Data.Devices, &none) != nil || len(none) > 0 {
			return allStatus{}, errors.New("cloud: all_status: the states are not an object")
		}
	}
	var all allStatus
	for key, raw := range entries {
		d, err := decodeDeviceStatus(key, raw)
		if err != nil {
			all.refused++
			continue
		}
		all.devices = append(all.devices, d)
	}
	return all, nil
}

// decodeDeviceStatus decodes one entry. The outer key is unreliable (US), so it counts
// only where the entry does not name its device.
func decodeDeviceStatus(key string, raw []byte) (deviceStatus, error) {
	doc, err := status.Parse(raw)
	if err != nil {
		return deviceStatus{}, err
	}
	d := deviceStatus{status: doc}
	info, _ := doc["_dev_info"].(map[string]any)
	for _, id := range []any{info["id"], doc["id"], key} {
		if d.id, err = httpID(id); err == nil {
			break
		}
	}
	if err != nil {
		return deviceStatus{}, err
	}
	d.gen, _ = info["gen"].(string)
	if online, ok := flag(info["online"]); ok {
		d.online = domain.Some(online)
	}
	delete(doc, "_dev_info")
	return d, nil
}
