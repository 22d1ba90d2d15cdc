package cloud

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

const (
	gen1Digits = 6  // hex digits of the id of a first generation's device
	gen2Digits = 12 // of a later one: its MAC address
	maxTextID  = 64
	maxNumber  = 1<<(4*gen2Digits) - 1
)

// WireID is a device's id as it came. The socket writes it in decimal and HTTP in
// hex (US), so an id of digits alone can be read both ways: about one in twenty of
// the first generation's (measured). The direction decides, and what is known
// already overrules it: see [WireID.Resolve].
type WireID struct {
	first  domain.DeviceID // as the direction has it
	second domain.DeviceID // as the other one would, or ""
}

// socketID reads an id as the socket writes it: decimal, in a string or a number.
func socketID(v any) (WireID, error) {
	text, err := idText(v)
	if err != nil {
		return WireID{}, err
	}
	if id, ok := textID(text); ok {
		return WireID{first: id}, nil
	}
	decimal, isDecimal := fromDecimal(text)
	hex, isHex := fromHex(text)
	isHex = isHex && (len(text) == gen1Digits || len(text) == gen2Digits)
	switch {
	case isDecimal && isHex && hex != decimal:
		return WireID{first: decimal, second: hex}, nil
	case isDecimal:
		return WireID{first: decimal}, nil
	case isHex:
		return WireID{first: hex}, nil
	}
	return WireID{}, fmt.Errorf("cloud: device id %.40q is neither decimal nor hex", text)
}

// httpID reads an id as HTTP writes it: hex. An id of digits alone may have become
// a JSON number on its way; its digits are still hex (US).
func httpID(v any) (WireID, error) {
	text, err := idText(v)
	if err != nil {
		return WireID{}, err
	}
	if id, ok := textID(text); ok {
		return WireID{first: id}, nil
	}
	hex, isHex := fromHex(text)
	decimal, isDecimal := fromDecimal(text)
	switch {
	case isHex && isDecimal && hex != decimal:
		return WireID{first: hex, second: decimal}, nil
	case isHex:
		return WireID{first: hex}, nil
	case isDecimal:
		return WireID{first: decimal}, nil
	}
	return WireID{}, fmt.Errorf("cloud: device id %.40q is neither hex nor decimal", text)
}

// Resolve says which device is meant: the reading that the direction asks for,
// unless only the other one is known.
func (w WireID) Resolve(known func(domain.DeviceID) bool) domain.DeviceID {
	if w.second != "" && known != nil && !known(w.first) && known(w.second) {
		return w.second
	}
	return w.first
}

func idText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case float64:
		if v < 0 || v > maxNumber || v != float64(uint64(v)) {
			return "", fmt.Errorf("cloud: device id %v is not a whole number of 48 bits", v)
		}
		return strconv.FormatUint(uint64(v), 10), nil
	}
	return "", fmt.Errorf("cloud: device id is missing or neither text nor number")
}

// textID is an id that stays as it is: those of Bluetooth and Z-Wave devices begin
// with X (US).
func textID(s string) (domain.DeviceID, bool) {
	if !strings.HasPrefix(s, "X") || len(s) > maxTextID || strings.Contains(s, ":") {
		return "", false
	}
	id, err := domain.ParseDeviceID(s)
	return id, err == nil
}

func fromDecimal(s string) (domain.DeviceID, bool) {
	if len(s) == 0 || len(s) > 15 || s[0] == '+' { // 2^48 has 15 digits
		return "", false
	}
	n, err := strconv.ParseUint(s, 10, 4*gen2Digits)
	if err != nil {
		return "", false
	}
	return padded(strconv.FormatUint(n, 16)), true
}

func fromHex(s string) (domain.DeviceID, bool) {
	if len(s) == 0 || len(s) > gen2Digits || s[0] == '+' {
		return "", false
	}
	if _, err := strconv.ParseUint(s, 16, 64); err != nil {
		return "", false
	}
	return padded(strings.ToLower(s)), true
}

func padded(hex string) domain.DeviceID {
	digits := gen1Digits
	if len(hex) > gen1Digits {
		digits = gen2Digits
	}
	return domain.DeviceID(strings.Repeat("0", digits-len(hex)) + hex)
}

// socketText writes a device's id as the socket wants it.
func socketText(id domain.DeviceID) string {
	if n, err := strconv.ParseUint(string(id), 16, 64); err == nil {
		return strconv.FormatUint(n, 10)
	}
	return string(id)
}

// baseOf cuts the channel off an id.
func baseOf(id domain.DeviceID) domain.DeviceID {
	base, _, _ := strings.Cut(string(id), ":")
	return domain.DeviceID(base)
}
