package socketio

import (
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// offset is the last argument of an event: the place of a reader that has the event. It is
// POSITION for the first revision, and otherwise
// POSITION;REVISION;SYSTEM=POSITION;SYSTEM=POSITION…
type offset struct {
	position domain.Position // of the event
	revision uint64
	// rooms are the other rooms, in a revision after the first. A zero position means that the
	// reader has got nothing of that room yet.
	rooms map[domain.SystemID]domain.Position
}

// parseOffset parses an offset. ok is false for other text, such as the last argument of an
// event that an application sent to itself.
func parseOffset(s string) (o offset, ok bool) {
	parts := strings.Split(s, ";")
	var err error
	if o.position, err = domain.ParsePosition(parts[0]); err != nil {
		return offset{}, false
	}
	if o.revision = 1; len(parts) == 1 {
		return o, true
	}
	// 62 bits, so that the revision can still be incremented.
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

// positionIn returns the position of a system in s, which may be an offset: clients may send
// the last argument of an event wherever a position is expected.
func positionIn(s string, system domain.SystemID) (domain.Position, error) {
	if o, ok := parseOffset(s); ok {
		if at, named := o.rooms[system]; named {
			return at, nil
		}
		return o.position, nil
	}
	return domain.ParsePosition(s)
}
