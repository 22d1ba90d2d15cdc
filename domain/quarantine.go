package domain

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Quarantined is an entry of the log that could not be read, or not be projected. One
// that names its system is in that system's history as well.
type Quarantined struct {
	Partition     int       `json:"partition"`
	Position      Position  `json:"position"`
	SystemID      SystemID  `json:"systemId,omitempty"` // empty when the entry names none
	EventID       string    `json:"eventId"`
	Type          EventType `json:"type"`
	Reason        string    `json:"reason"`
	Data          string    `json:"data"` // the event's data as text: for [TypeUndecodable] the fields of the entry
	QuarantinedAt time.Time `json:"quarantinedAt"`
}

// Place is where the entry is in the quarantine.
func (q *Quarantined) Place() QuarantinePlace { return QuarantinePlace{q.Position, q.Partition} }

// QuarantineQuery picks entries, the newest first. Fields that are nil or zero do
// not narrow.
type QuarantineQuery struct {
	System SystemID
	Before *QuarantinePlace // exclusive
	Limit  int
}

// QuarantinePage is some of the quarantine, and whether there is more behind it.
type QuarantinePage struct {
	Entries []Quarantined
	More    bool
}

// QuarantineSize says how much is in quarantine, of all systems and of none.
type QuarantineSize struct {
	Entries     int64
	ByPartition map[int]int64
	Oldest      time.Time // when the first entry came, zero without any
	Newest      time.Time
}

// QuarantinePlace orders the quarantine: positions of two partitions may be the same.
type QuarantinePlace struct {
	Position  Position
	Partition int
}

// String is the form that [ParseQuarantinePlace] reads.
func (p QuarantinePlace) String() string { return fmt.Sprintf("%s/%d", p.Position, p.Partition) }

// ParseQuarantinePlace reads what String wrote.
func ParseQuarantinePlace(s string) (p QuarantinePlace, err error) {
	position, partition, _ := strings.Cut(s, "/")
	if p.Position, err = ParsePosition(position); err == nil {
		if p.Partition, err = strconv.Atoi(partition); err == nil && p.Partition >= 0 {
			return p, nil
		}
	}
	return p, Invalid(CodeInvalidPosition, "before must be the next of an earlier page, not "+quote(s))
}
