package domain

import "time"

// DeviceRefusal records that a process refused a device, or closed its socket because of the device's behaviour. It is
// not an event: processes keep it in memory, for operators.
type DeviceRefusal struct {
	At       time.Time `json:"at"`
	Reason   string    `json:"reason"`             // one word, the same as in the metrics
	DeviceID DeviceID  `json:"deviceId,omitempty"` // the device's own name for itself, if it sent one
	Remote   string    `json:"remote"`             // its address, or a proxy's
	Detail   string    `json:"detail,omitempty"`   // for people
}
