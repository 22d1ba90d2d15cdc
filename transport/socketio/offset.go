package socketio

import (
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// offset is the last argument of an event: where its reader is when it has the
// event. It is written POSITION for the first revision, and else
// POSITION;REVISION;SYSTEM=POSITION;SYSTEM=POSITION…
type offset struct {
	position domain.Position // of the event
	revision uint64
	// rooms are all but the event's, in a revision after the first. One with the zero
	// position has given its reader nothing yet.
	rooms map[domain.SystemID]domain.Position
}

// parseOffset reads an offset. It is not ok for what is none, such as the last
// argument of an event that an application sent to itself.
func parseOffset(s string) (o offset, ok bool) {
	parts := strings.Split(s, ";")
	var err error
	if o.position, err = domain.ParsePosition(parts[0]); err != nil {
		return offset{}, false
	}
	if o.revision = 1; len(parts) == 1 {
		return o, true
	}
	// Fewer bits than it has: it will be counted on.
	if o.revision, err = strconv.ParseUint(parts[1], 10, 62); err != nil {
		return offset{}, false
	}
	o.rooms = map[domain.SystemID]domain.Position{}
	for _, part := range parts[2:] {
		name, position, _ := strings.Cut(part, "=")
		at, err := domain.ParsePosition(position)
		if err != nil {
			return offset{}, false
		}
		o.rooms[domain.SystemID(name)] = at
	}
	return o, true
}

// positionIn is the position that s, which may be an offset, has for a system.
// Clients may give what they got as the last argument wherever a position is asked
// for.
func positionIn(s string, system domain.SystemID) (domain.Position, error) {
	if o, ok := parseOffset(s); ok {
		if at, named := o.rooms[system]; named {
			return at, nil
		}
		return o.position, nil
	}
	return domain.ParsePosition(s)
}
