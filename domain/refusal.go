package domain

import "time"

// DeviceRefusal says that a process refused a device, or ended its socket for what
// the device did. It is no event: it is kept in memory, for operators.
type DeviceRefusal struct {
	At       time.Time `json:"at"`
	Reason   string    `json:"reason"`             // a word, as in the metrics
	DeviceID DeviceID  `json:"deviceId,omitempty"` // what it calls itself, if it came to say that
	Remote   string    `json:"remote"`             // its address, or a proxy's
	Detail   string    `json:"detail,omitempty"`   // in words
}
