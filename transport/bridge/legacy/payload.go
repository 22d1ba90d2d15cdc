package legacy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// markMember is the payload member that holds our mark.
const markMember = "plugcast"

// mark identifies the event of plugcast that a payload was made from.
type mark struct {
	ID     string `json:"id"`
	Origin string `json:"origin"` // the deployment or link where it was first appended
	Via    string `json:"via"`    // the deployment that emitted it
}

// object is a payload whose members are not decoded yet.
type object map[string]json.RawMessage

// parsePayload reads the first argument of an event. It removes our mark from the payload and
// returns it, or nil if there is none.
func parsePayload(args []json.RawMessage) (object, *mark, error) {
	if len(args) == 0 {
		return nil, nil, errors.New("it has no payload")
	}
	var o object
	if json.Unmarshal(domain.CleanJSON(args[0]), &o) != nil || o == nil {
		return nil, nil, errors.New("its payload is not an object")
	}
	var m *mark
	if raw, has := o[markMember]; has {
		delete(o, markMember)
		m = &mark{}
		if json.Unmarshal(raw, m) != nil || m.ID == "" {
			m = nil // another use of the same name
		}
	}
	return o, m, nil
}

// checkSystem removes the systemId from a payload. It fails if the payload names another
// system: such an event must not get in, whichever room it came from.
func (s *systemLink) checkSystem(o object) error {
	raw, has := o["systemId"]
	if !has {
		return nil
	}
	delete(o, "systemId")
	named, err := identifier(raw)
	if err != nil || (named != s.system.Room && named != string(s.system.System.System)) {
		return errors.New("it is about another system")
	}
	return nil
}

// eventOf converts a payload of the server to an event. Members that the domain does not know
// go under attributes.
func eventOf(t domain.EventType, system domain.SystemID, o object) (domain.Event, error) {
	id, err := identifier(o["deviceId"])
	if err != nil {
		return domain.Event{}, fmt.Errorf("deviceId: %w", err)
	}
	device, err := domain.ParseDeviceID(id)
	if err != nil {
		return domain.Event{}, errors.New(domain.AsError(err).Detail)
	}
	delete(o, "deviceId")
	switch t {
	case domain.TypeDeviceUpdate:
		return updateOf(system, device, o)
	case domain.TypeDeviceOfflineStatus:
		return offlineOf(system, device, o)
	default:
		return assignmentOf(system, device, o)
	}
}

// identifier reads an id: a string, or a number, as some databases assign.
func identifier(raw json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil && text != "" {
		return text, nil
	}
	var number json.Number
	if len(raw) > 0 && raw[0] != '"' && json.Unmarshal(raw, &number) == nil && number != "" {
		return number.String(), nil
	}
	return "", errors.New("is missing or not an id")
}

// updateOf is lenient with all members but online and relayOn: a member that has one of our
// names but another type is the publisher's own, and goes under attributes.
func updateOf(system domain.SystemID, device domain.DeviceID, o object) (domain.Event, error) {
	known := object{"systemId": quoted(string(system)), "deviceId": quoted(string(device))}
	rest := object{}
	for name, value := range o {
		_, err := domain.ParseSystemUpdate(mustJSON(object{"systemId": known["systemId"], "deviceId": known["deviceId"], name: value}))
		switch {
		case err == nil && name != "attributes":
			known[name] = value
		case name == "attributes": // handled below
		case name == "online" || name == "relayOn":
			return domain.Event{}, fmt.Errorf("%s: must be true or false", name)
		default:
			rest[name] = value
		}
	}
	switch attributes := o["attributes"]; {
	case len(rest) == 0 && attributes != nil && !isNull(attributes):
		known["attributes"] = attributes // byte for byte
	case attributes != nil:
		if err := addMembers(attributes, rest); err != nil {
			return domain.Event{}, err
		}
	}
	if len(rest) > 0 {
		known["attributes"] = mustJSON(rest)
	}
	update, err := domain.ParseSystemUpdate(mustJSON(known))
	if err != nil {
		return domain.Event{}, errors.New(domain.AsError(err).Detail)
	}
	return domain.NewEvent(system, update.DeviceUpdate, domain.Cause{})
}

func offlineOf(system domain.SystemID, device domain.DeviceID, o object) (domain.Event, error) {
	status := domain.DeviceOfflineStatus{DeviceID: device, Reason: domain.ReasonReported}
	if json.Unmarshal(o["online"], &status.Online) != nil || isNull(o["online"]) {
		return domain.Event{}, errors.New("online: must be true or false")
	}
	if raw, has := o["relayOn"]; has {
		if json.Unmarshal(raw, &status.RelayOn) != nil {
			return domain.Event{}, errors.New("relayOn: must be true or false")
		}
	}
	if status.Online {
		status.Reason = domain.ReasonBack
	}
	delete(o, "online")
	delete(o, "relayOn")
	var reason domain.OfflineReason
	if json.Unmarshal(o["reason"], &reason) == nil {
		switch reason {
		case domain.ReasonHeartbeatMissed, domain.ReasonSocketClosed, domain.ReasonReported, domain.ReasonBack:
			status.Reason = reason
			delete(o, "reason")
		}
	}
	if seen, ok := parseMoment(o["lastSeenAt"]); ok {
		status.LastSeenAt = domain.Some(seen)
		delete(o, "lastSeenAt")
	}
	return withAttributes(system, status, o)
}

func assignmentOf(system domain.SystemID, device domain.DeviceID, o object) (domain.Event, error) {
	assignment := domain.AssignmentUpdated{DeviceID: device}
	equipment := func(name string, needed bool) (*domain.EquipmentID, error) {
		raw, has := o[name]
		delete(o, name)
		switch {
		case !has && needed:
			return nil, fmt.Errorf("%s: is missing; it is null for a plug that was released", name)
		case !has || isNull(raw):
			return nil, nil
		}
		text, err := identifier(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		id, err := domain.ParseEquipmentID(text)
		if err != nil {
			return nil, errors.New(domain.AsError(err).Detail)
		}
		return &id, nil
	}
	var err error
	if assignment.EquipmentID, err = equipment("equipmentId", true); err != nil {
		return domain.Event{}, err
	}
	if assignment.PreviousEquipmentID, err = equipment("previousEquipmentId", false); err != nil {
		return domain.Event{}, err
	}
	if text, err := identifier(o["previousDeviceId"]); err == nil {
		if id, err := domain.ParseDeviceID(text); err == nil {
			assignment.PreviousDeviceID = &id
		}
	}
	delete(o, "previousDeviceId")
	return withAttributes(system, assignment, o)
}

// maxAttributes bounds the attributes of an event, in bytes, as with updates.
const maxAttributes = 4 << 10

// withAttributes makes an event of data, and adds the rest of the payload under attributes.
// The fold ignores them, and readers get them.
func withAttributes(system domain.SystemID, data domain.Data, rest object) (domain.Event, error) {
	e, err := domain.NewEvent(system, data, domain.Cause{})
	if err != nil {
		return e, err
	}
	if raw, has := rest["attributes"]; has {
		delete(rest, "attributes")
		if err := addMembers(raw, rest); err != nil {
			return e, err
		}
	}
	if len(rest) > 0 {
		attributes := mustJSON(rest)
		if len(attributes) > maxAttributes {
			return e, fmt.Errorf("attributes: the other members are over %d bytes", maxAttributes)
		}
		e.Data = append(append(append(bytes.TrimSuffix(e.Data, []byte("}")), `,"attributes":`...), attributes...), '}')
	}
	_, err = e.Decode()
	return e, err
}

// addMembers adds the members of a JSON object to another object, which keeps its own.
func addMembers(raw json.RawMessage, into object) error {
	var more object
	if json.Unmarshal(raw, &more) != nil {
		return errors.New("attributes: is not an object")
	}
	for name, value := range more {
		if _, has := into[name]; !has {
			into[name] = value
		}
	}
	return nil
}

// parseMoment reads a time as JavaScript writes it: as text, or in milliseconds since 1970.
func parseMoment(raw json.RawMessage) (time.Time, bool) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		t, err := domain.ParseTime(text)
		return t, err == nil
	}
	var ms float64
	if json.Unmarshal(raw, &ms) == nil && !isNull(raw) && ms > 0 && ms < 1e14 {
		return time.UnixMilli(int64(ms)).UTC(), true
	}
	return time.Time{}, false
}

// payloadOf converts an event to a payload for the server: the attributes become members
// beside those that the domain knows.
func payloadOf(e *domain.Event) (object, error) {
	var o object
	if err := json.Unmarshal(e.Data, &o); err != nil {
		return nil, fmt.Errorf("legacy: payload: %w", err)
	}
	if raw, has := o["attributes"]; has {
		delete(o, "attributes")
		if err := addMembers(raw, o); err != nil {
			return nil, fmt.Errorf("legacy: payload: %w", err)
		}
	}
	return o, nil
}

// values decodes a payload for a comparison.
func (o object) values() map[string]any {
	members := make(map[string]any, len(o))
	for name, raw := range o {
		var value any
		if json.Unmarshal(raw, &value) == nil {
			members[name] = value
		}
	}
	return members
}

// canonical returns the same text for payloads with equal members, however they are written,
// and with or without a systemId.
func (o object) canonical() string {
	values := o.values()
	delete(values, "systemId")
	return string(mustJSON(values))
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

func quoted(s string) json.RawMessage { return mustJSON(s) }

// mustJSON encodes values made of strings, counts and decoded JSON. All of these can be
// encoded: see TestDecodedJSONCanBeEncoded.
func mustJSON(v any) json.RawMessage {
	b, err := domain.EncodeJSON(v)
	if err != nil {
		panic("legacy: decoded JSON cannot be encoded: " + err.Error())
	}
	return b
}
