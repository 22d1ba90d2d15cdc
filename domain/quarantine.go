package domain

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Quarantined is an entry of the log that plugcast could not read or could not project. If it names its system, it is
// also in that system's history.
type Quarantined struct {
	Partition     int       `json:"partition"`
	Position      Position  `json:"position"`
	SystemID      SystemID  `json:"systemId,omitempty"` // empty when the entry names none
	EventID       string    `json:"eventId"`
	Type          EventType `json:"type"`
	Reason        string    `json:"reason"`
	Data          string    `json:"data"` // the event's data as text; of [TypeUndecodable], the fields of the entry
	QuarantinedAt time.Time `json:"quarantinedAt"`
}

// Cursor returns the entry's place in the quarantine.
func (q *Quarantined) Cursor() QuarantineCursor { return QuarantineCursor{q.Position, q.Partition} }

// QuarantineQuery selects entries, newest first. Nil and zero fields do not narrow the result.
type QuarantineQuery struct {
	System SystemID
	Before *QuarantineCursor // exclusive
	Limit  int
}

// QuarantinePage is one page of the quarantine.
type QuarantinePage struct {
	Entries []Quarantined
	More    bool // there are older entries
}

// QuarantineSize counts the entries in quarantine, including those that name no system.
type QuarantineSize struct {
	Entries     int64
	ByPartition map[int]int64
	Oldest      time.Time // time of the first entry; zero if there is none
	Newest      time.Time
}

// QuarantineCursor is a place in the quarantine. It contains the partition because two partitions may have the same
// position.
type QuarantineCursor struct {
	Position  Position
	Partition int
}

// String returns the form that [ParseQuarantineCursor] parses.
func (p QuarantineCursor) String() string { return fmt.Sprintf("%s/%d", p.Position, p.Partition) }

// ParseQuarantineCursor parses the result of [QuarantineCursor.String]. It returns an [Error] with
// [CodeInvalidPosition] for anything else.
func ParseQuarantineCursor(s string) (p QuarantineCursor, err error) {
	position, partition, _ := strings.Cut(s, "/")
	if p.Position, err = ParsePosition(position); err == nil {
		if p.Partition, err = strconv.Atoi(partition); err == nil && p.Partition >= 0 {
			return p, nil
		}
	}
	return p, Invalid(CodeInvalidPosition, "before must be the value of next in an earlier page, not "+quote(s))
}
