package domain

import (
	"encoding/json"
	"time"
)

// FindingKind is the kind of problem that a bridge's link to another platform reports.
type FindingKind string

// The kinds of finding. A link that forwards reports events that may be missing or duplicated because the other side
// keeps no record, and events that could not be forwarded. A link in shadow mode reports the differences between the
// two sides. Both report gaps.
const (
	FindingGap        FindingKind = "gap"         // the link could not hear the other side for a while
	FindingRejected   FindingKind = "rejected"    // the other side sent something that is not an event of plugcast
	FindingRefused    FindingKind = "refused"     // the other side refused an event
	FindingMaybeLost  FindingKind = "maybe-lost"  // the other side may have missed events
	FindingMaybeTwice FindingKind = "maybe-twice" // the other side may have received events twice
	FindingOnlyHere   FindingKind = "only-here"
	FindingOnlyThere  FindingKind = "only-there"
	FindingDifferent  FindingKind = "different"
	FindingLate       FindingKind = "late"
	FindingReordered  FindingKind = "reordered"
)

// Finding is one entry of a link's report.
type Finding struct {
	ID      uint64      `json:"id"` // grows; assigned by the store
	System  SystemID    `json:"system"`
	Link    string      `json:"link"`
	Kind    FindingKind `json:"kind"`
	At      time.Time   `json:"at"` // when the link found it
	Event   EventType   `json:"event,omitempty"`
	Device  DeviceID    `json:"device,omitempty"`
	From    *time.Time  `json:"from,omitempty"`    // when it began, if it lasted for a while
	To      *time.Time  `json:"to,omitempty"`      // when it ended
	After   *Position   `json:"after,omitempty"`   // in this deployment's log: the finding is about events after it
	Through *Position   `json:"through,omitempty"` // up to this one, inclusive, or the event itself
	Count   uint64      `json:"count,omitempty"`   // number of events, if it is known and not one
	Members []string    `json:"members,omitempty"` // names of the members that differ
	DelayMS int64       `json:"delayMs,omitempty"` // how much later it arrived there than here
	// Here and There are the two payloads, if they are small enough to store.
	Here   json.RawMessage `json:"here,omitempty"`
	There  json.RawMessage `json:"there,omitempty"`
	Detail string          `json:"detail,omitempty"`
}

// FindingsReport lists the stored findings that a [FindingsFilter] selects.
type FindingsReport struct {
	Links    []LinkFindings `json:"links"`
	Findings []Finding      `json:"findings"` // oldest first
	More     bool           `json:"more"`     // there are newer findings than these
}

// LinkFindings summarizes the findings of one system of one link.
type LinkFindings struct {
	System  SystemID          `json:"system"`
	Link    string            `json:"link"`
	Counts  map[string]uint64 `json:"counts"`  // findings by kind, and events compared or forwarded, since Since
	Dropped uint64            `json:"dropped"` // number of findings that the store deleted because there were too many
	Since   time.Time         `json:"since"`   // start of the counts
	AliveAt *time.Time        `json:"aliveAt,omitempty"`
}

// FindingsFilter selects findings. Zero fields do not narrow the result.
type FindingsFilter struct {
	System SystemID
	Link   string
	Since  time.Time // found at this time or later
	After  uint64    // findings with a greater ID
	Limit  int
}
