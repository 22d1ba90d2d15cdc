package domain

import "time"

// DeadLetter says of one event that a process gave up its reaction to it. The
// event itself is in history.
type DeadLetter struct {
	SystemID SystemID  `json:"systemId"`
	EventID  string    `json:"eventId"`
	Position Position  `json:"position" doc:"Of the event"`
	Type     EventType `json:"type" doc:"Of the event"`
	Node     string    `json:"node" doc:"The process that gave up"`
	Tries    int       `json:"tries" doc:"How often the reaction was tried"`
	Error    string    `json:"error" doc:"Of the last try"`
	Time     time.Time `json:"time" doc:"When it was given up"`
}
