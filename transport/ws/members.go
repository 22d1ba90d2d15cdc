package ws

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
)

// member is a permitted member of a request's data.
type member struct {
	name string
	into any // a pointer to a string, *string, bool or rooms.Names
}

// kind describes the type of the member for clients.
func (m member) kind() string {
	switch m.into.(type) {
	case *bool:
		return "true or false"
	case *rooms.Names:
		return "an array of strings, or a string with commas between names"
	default:
		return "a string"
	}
}

// joinMembers returns the members of a join's data.
func joinMembers(j *rooms.JoinRequest) []member {
	return []member{
		{"systemId", &j.SystemID}, {"after", &j.After}, {"snapshot", &j.Snapshot}, {"types", &j.Types}, {"devices", &j.Devices},
		{"conflate", &j.Conflate}, {"type", &j.Type}, {"deviceId", &j.DeviceID},
	}
}

// decode decodes the request's data into its members. Names are case-sensitive, and unknown
// names are refused: a join with a misspelt "after" would begin at the newest event, and its
// client would never learn that it missed events. Null means absent, for a member and for
// the whole data.
func (r *request) decode(members ...member) error {
	if len(r.Data) == 0 {
		return domain.Invalid(CodeInvalidFrame, fmt.Sprintf(`%s needs "data"`, r.Event))
	}
	if string(r.Data) == "null" {
		return nil
	}
	if !domain.IsJSONObject(r.Data) {
		return domain.Invalid(CodeInvalidFrame, fmt.Sprintf("the data of %s must be an object", r.Event))
	}
	var seen uint64
	for name, value := range domain.JSONMembers(r.Data) { // parseRequest has checked that all of it is valid JSON
		i := slices.IndexFunc(members, func(m member) bool { return m.name == name })
		if i < 0 {
			return r.unknownMember(name, members)
		}
		m := members[i]
		if seen&(1<<i) != 0 {
			return domain.Invalid(CodeInvalidFrame, m.name+" appears twice")
		}
		seen |= 1 << i
		if err := json.Unmarshal(value, m.into); err != nil {
			return domain.Invalid(CodeInvalidFrame, fmt.Sprintf("%s must be %s", m.name, m.kind())).WithCause(err)
		}
	}
	return nil
}

func (r *request) unknownMember(name string, members []member) error {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.name
	}
	there := "there is "
	if len(names) > 1 {
		there = "there are "
	}
	return domain.Invalid(CodeInvalidFrame, fmt.Sprintf("%s has no member %.80q; %s", r.Event, name, there+strings.Join(names, ", ")))
}
