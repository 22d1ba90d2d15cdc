package domain

import (
	"encoding/json"
	"time"
)

// FindingKind is what a link to another platform has to report.
type FindingKind string

// The kinds of finding. Those of a link that forwards say what may be missing or
// there twice because the other side cannot remember, and what could not be passed
// on; those of one that only compares are the differences. Gaps are of both.
const (
	FindingGap        FindingKind = "gap"         // the other side could not be heard for a while
	FindingRejected   FindingKind = "rejected"    // it said something that is no event of ours
	FindingRefused    FindingKind = "refused"     // it did not take an event
	FindingMaybeLost  FindingKind = "maybe-lost"  // events that it may not have got
	FindingMaybeTwice FindingKind = "maybe-twice" // events that it may have got twice
	FindingOnlyHere   FindingKind = "only-here"
	FindingOnlyThere  FindingKind = "only-there"
	FindingDifferent  FindingKind = "different"
	FindingLate       FindingKind = "late"
	FindingReordered  FindingKind = "reordered"
)

// Finding is one entry of a link's report.
type Finding struct {
	ID      uint64      `json:"id"` // grows; given when it is kept
	System  SystemID    `json:"system"`
	Link    string      `json:"link"`
	Kind    FindingKind `json:"kind"`
	At      time.Time   `json:"at"` // when it was found
	Event   EventType   `json:"event,omitempty"`
	Device  DeviceID    `json:"device,omitempty"`
	From    *time.Time  `json:"from,omitempty"`    // of what lasted
	To      *time.Time  `json:"to,omitempty"`      //
	After   *Position   `json:"after,omitempty"`   // in our log: events after it
	Through *Position   `json:"through,omitempty"` // up to this one, or the event itself
	Count   uint64      `json:"count,omitempty"`   // how many events it is about, when that is known and not one
	Members []string    `json:"members,omitempty"` // that differ
	DelayMS int64       `json:"delayMs,omitempty"` // how much later it was there than here
	// Here and There are the payloads, when they are small enough to keep.
	Here   json.RawMessage `json:"here,omitempty"`
	There  json.RawMessage `json:"there,omitempty"`
	Detail string          `json:"detail,omitempty"`
}

// FindingsReport is what is kept of the links of all systems, or of those that
// were asked for.
type FindingsReport struct {
	Links    []FindingsOfLink `json:"links"`
	Findings []Finding        `json:"findings"` // oldest first
	More     bool             `json:"more"`     // there are newer ones than those shown
}

// FindingsOfLink sums up one system of one link.
type FindingsOfLink struct {
	System  SystemID          `json:"system"`
	Link    string            `json:"link"`
	Counts  map[string]uint64 `json:"counts"`  // of findings by kind, and of what was compared or passed on, since the beginning
	Dropped uint64            `json:"dropped"` // findings that are not kept any more, because there were too many
	Since   time.Time         `json:"since"`   // the beginning
	AliveAt *time.Time        `json:"aliveAt,omitempty"`
}

// FindingsFilter says which findings are wanted. Empty members want all.
type FindingsFilter struct {
	System SystemID
	Link   string
	Since  time.Time // found at or after
	After  uint64    // with a greater ID
	Limit  int
}
