package ws

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// member is a member that the data of a request may have.
type member struct {
	name string
	into any // a pointer to a string, *string, bool or []string
}

// kind says what the member must be, in words for clients.
func (m member) kind() string {
	switch m.into.(type) {
	case *bool:
		return "true or false"
	case *[]string:
		return "an array of strings"
	default:
		return "a string"
	}
}

// decode reads the request's data into its members. Names are compared to the
// letter, and others are refused: a join with a misspelt "after" would start
// from now, and its client would never learn what it missed. Null is the same as
// leaving out, for a member and for the whole.
func (r *request) decode(members ...member) error {
	if len(r.Data) == 0 {
		return domain.Invalid(CodeInvalidFrame, fmt.Sprintf(`%s needs "data"`, r.Event))
	}
	if string(r.Data) == "null" {
		return nil
	}
	if r.Data[0] != '{' {
		return domain.Invalid(CodeInvalidFrame, fmt.Sprintf("the data of %s must be an object", r.Event))
	}
	d := json.NewDecoder(bytes.NewReader(r.Data))
	_, _ = d.Token() // the brace; that all is valid JSON was found out with the frame
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return fmt.Errorf("ws: data of %s: %w", r.Event, err)
		}
		m, ok := find(members, token)
		if !ok {
			return r.unknownMember(token, members)
		}
		if err := d.Decode(m.into); err != nil {
			return domain.Invalid(CodeInvalidFrame, fmt.Sprintf("%s must be %s", m.name, m.kind())).Because(err)
		}
	}
	return nil
}

func find(members []member, name json.Token) (member, bool) {
	for _, m := range members {
		if m.name == name {
			return m, true
		}
	}
	return member{}, false
}

func (r *request) unknownMember(name json.Token, members []member) error {
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
