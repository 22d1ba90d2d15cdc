package domain

import "strconv"

// SystemID names a tenant: one clinic or centre. It is 1 to 64 characters of
// A-Z a-z 0-9 . _ and -, other than . and .. themselves, as all ids here. A
// system exists as soon as a token names it.
type SystemID string

// DeviceID names one switch channel of one Shelly plug, as the device calls
// itself, for example shellyplugsg3-8cbfea9a1b2c; channels beyond the first
// carry a suffix, as in shellypstripg4-8cbfea9a1b2c:2. It is 1 to 128
// characters of A-Z a-z 0-9 . _ : and -, unique within its system.
type DeviceID string

// EquipmentID names what a plug feeds, unique within its system. It is 1 to 64
// characters of A-Z a-z 0-9 . _ and -.
type EquipmentID string

// ConnectionID names one Shelly credential, unique within its system. It is 1 to
// 64 characters of A-Z a-z 0-9 . _ and -.
type ConnectionID string

// PlatformSystem is the reserved system that carries staff commands which
// concern more than one system. Every process follows its partition. Only staff
// may name it.
const PlatformSystem SystemID = "_platform"

const (
	maxID       = 64
	maxDeviceID = 128
	maxOrigin   = 128
)

// ParseSystemID checks s and returns it as a SystemID, or an [Error] with
// [CodeInvalidSystemID].
func ParseSystemID(s string) (SystemID, error) {
	if !isID(s, maxID, false) {
		return "", Invalid(CodeInvalidSystemID, "systemId must be 1 to 64 characters of A-Z a-z 0-9 . _ -, not "+quote(s))
	}
	return SystemID(s), nil
}

// ParseDeviceID checks s and returns it as a DeviceID, or an [Error] with
// [CodeInvalidDeviceID].
func ParseDeviceID(s string) (DeviceID, error) {
	if !isID(s, maxDeviceID, true) {
		return "", Invalid(CodeInvalidDeviceID, "deviceId must be 1 to 128 characters of A-Z a-z 0-9 . _ : -, not "+quote(s))
	}
	return DeviceID(s), nil
}

// ParseEquipmentID checks s and returns it as an EquipmentID, or an [Error]
// with [CodeInvalidEquipmentID].
func ParseEquipmentID(s string) (EquipmentID, error) {
	if !isID(s, maxID, false) {
		return "", Invalid(CodeInvalidEquipmentID, "equipmentId must be 1 to 64 characters of A-Z a-z 0-9 . _ -, not "+quote(s))
	}
	return EquipmentID(s), nil
}

// ParseConnectionID checks s and returns it as a ConnectionID, or an [Error]
// with [CodeInvalidConnectionID].
func ParseConnectionID(s string) (ConnectionID, error) {
	if !isID(s, maxID, false) {
		return "", Invalid(CodeInvalidConnectionID, "connectionId must be 1 to 64 characters of A-Z a-z 0-9 . _ -, not "+quote(s))
	}
	return ConnectionID(s), nil
}

func isID(s string, limit int, colon bool) bool {
	// A path of . or .. leads elsewhere in a URL: nobody could ask for it.
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

// quote shows untrusted input in an error without letting it be long.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = CutText(s, most)
	}
	return strconv.Quote(s)
}
