package domain

import "time"

// DeadLetter records that a process gave up its reaction to an event. The event itself stays in the history. The doc
// tags appear in the OpenAPI document.
type DeadLetter struct {
	SystemID SystemID  `json:"systemId"`
	EventID  string    `json:"eventId"`
	Position Position  `json:"position" doc:"Of the event"`
	Type     EventType `json:"type" doc:"Of the event"`
	Node     string    `json:"node" doc:"The process that gave up"`
	Tries    int       `json:"tries" doc:"How often the process tried the reaction"`
	Error    string    `json:"error" doc:"Of the last try"`
	Time     time.Time `json:"time" doc:"When the process gave up"`
}
