package rooms

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"github.com/plugcast/plugcast/domain"
)

// JoinRequest is a client's request to join a system's room, on any kind of socket. Each
// filter has two names, as in the HTTP API, and both count.
type JoinRequest struct {
	SystemID string  `json:"systemId"`
	After    *string `json:"after"`
	Snapshot bool    `json:"snapshot"`
	Types    Names   `json:"types"`
	Type     Names   `json:"type"`
	Devices  Names   `json:"devices"`
	DeviceID Names   `json:"deviceId"`
	Conflate bool    `json:"conflate"`
}

// Filter parses the filters of the request.
func (j *JoinRequest) Filter() (domain.EventFilter, error) {
	return domain.ParseEventFilter(slices.Concat(j.Types, j.Type), slices.Concat(j.Devices, j.DeviceID))
}

// IsPlain reports whether the request has no options.
func (j *JoinRequest) IsPlain() bool {
	return j.After == nil && !j.Snapshot && len(j.Types)+len(j.Type)+len(j.Devices)+len(j.DeviceID) == 0 && !j.Conflate
}

// Names is a list of names in JSON: an array of strings, or one string. Each string may
// contain several names, separated by commas.
type Names []string

var errNames = errors.New("must be an array of strings, or a string with commas between names")

// UnmarshalJSON implements [json.Unmarshaler].
func (n *Names) UnmarshalJSON(raw []byte) error {
	into := any((*[]string)(n))
	if bytes.HasPrefix(raw, []byte{'"'}) {
		*n = make(Names, 1)
		into = &(*n)[0]
	}
	if json.Unmarshal(raw, into) != nil {
		return errNames
	}
	return nil
}
