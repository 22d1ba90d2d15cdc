package domain

import "strconv"

// SystemID names a tenant: one clinic or centre. It is 1 to 64 characters of A-Z a-z 0-9 . _ and -. Like all ids here it
// is neither "." nor "..". A system exists as soon as a token names it.
type SystemID string

// DeviceID names one switch channel of one Shelly plug by the device's own name, for example
// shellyplugsg3-8cbfea9a1b2c. Channels after the first have a suffix: shellypstripg4-8cbfea9a1b2c:2. It is 1 to 128
// characters of A-Z a-z 0-9 . _ : and -, unique within its system.
type DeviceID string

// EquipmentID names a piece of equipment that a plug feeds, unique within its system. It is 1 to 64 characters of A-Z
// a-z 0-9 . _ and -.
type EquipmentID string

// ConnectionID names one Shelly credential, unique within its system. It is 1 to 64 characters of A-Z a-z 0-9 . _ and -.
type ConnectionID string

// PlatformSystem is the reserved system whose log holds staff commands that concern more than one system. Every process
// follows its partition. Only staff may name it.
const PlatformSystem SystemID = "_platform"

const (
	maxID       = 64
	maxDeviceID = 128
	maxOrigin   = 128
)

// ParseSystemID returns s as a SystemID, or an [Error] with [CodeInvalidSystemID] if it is malformed.
func ParseSystemID(s string) (SystemID, error) {
	if !isID(s, maxID, false) {
		return "", Invalid(CodeInvalidSystemID, "systemId must be 1 to 64 characters of A-Z a-z 0-9 . _ -, not "+quote(s))
	}
	return SystemID(s), nil
}

// ParseDeviceID returns s as a DeviceID, or an [Error] with [CodeInvalidDeviceID] if it is malformed.
func ParseDeviceID(s string) (DeviceID, error) {
	if !isID(s, maxDeviceID, true) {
		return "", Invalid(CodeInvalidDeviceID, "deviceId must be 1 to 128 characters of A-Z a-z 0-9 . _ : -, not "+quote(s))
	}
	return DeviceID(s), nil
}

// ParseEquipmentID returns s as an EquipmentID, or an [Error] with [CodeInvalidEquipmentID] if it is malformed.
func ParseEquipmentID(s string) (EquipmentID, error) {
	if !isID(s, maxID, false) {
		return "", Invalid(CodeInvalidEquipmentID, "equipmentId must be 1 to 64 characters of A-Z a-z 0-9 . _ -, not "+quote(s))
	}
	return EquipmentID(s), nil
}

// ParseConnectionID returns s as a ConnectionID, or an [Error] with [CodeInvalidConnectionID] if it is malformed.
func ParseConnectionID(s string) (ConnectionID, error) {
	if !isID(s, maxID, false) {
		return "", Invalid(CodeInvalidConnectionID, "connectionId must be 1 to 64 characters of A-Z a-z 0-9 . _ -, not "+quote(s))
	}
	return ConnectionID(s), nil
}

// ParseDeployment returns s if it is the well-formed id of a deployment: 1 to 64 characters of A-Z a-z 0-9 . _ and -.
// Otherwise it returns an [Error] with [CodeInvalidDeployment].
func ParseDeployment(s string) (string, error) {
	if !isID(s, maxID, false) {
		return "", Invalid(CodeInvalidDeployment, "a deployment id must be 1 to 64 characters of A-Z a-z 0-9 . _ -, not "+quote(s))
	}
	return s, nil
}

// ParseOrigin returns s if it is a well-formed origin: the id of a deployment, or the name of a link to a server that
// is not one, such as socketio:NAME. It is 1 to 128 characters of A-Z a-z 0-9 . _ : and -. Otherwise ParseOrigin
// returns an [Error] with [CodeInvalidDeployment].
func ParseOrigin(s string) (string, error) {
	if !isID(s, maxOrigin, true) {
		return "", Invalid(CodeInvalidDeployment, "an origin must be 1 to 128 characters of A-Z a-z 0-9 . _ : -, not "+quote(s))
	}
	return s, nil
}

func isID(s string, limit int, colon bool) bool {
	// In a URL, the path segments . and .. lead elsewhere, so that no request could name such an id.
	if s == "" || len(s) > limit || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		case c == ':' && colon:
		default:
			return false
		}
	}
	return true
}

// quote returns untrusted input in quotes for an error text, truncated to 80 bytes.
func quote(s string) string {
	const limit = 80
	if len(s) > limit {
		s = TruncateText(s, limit)
	}
	return strconv.Quote(s)
}
