package cloud

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

const (
	gen1Digits = 6  // hex digits of a first-generation id
	gen2Digits = 12 // hex digits of a later one: a MAC address
	maxDecimal = 15 // decimal digits of the largest id
	maxTextID  = 64
	maxNumber  = 1<<(4*gen2Digits) - 1
)

// wireID is a device's id as it came. The socket writes ids in decimal and HTTP in hex
// (US), so an id of digits alone can be read both ways: about one in twenty of the
// first generation's (measured). The channel decides, unless only the other reading is
// a known device: see [wireID.resolve].
type wireID struct {
	first  domain.DeviceID // as this channel writes ids
	second domain.DeviceID // as the other channel does, or ""
}

// socketID reads an id as the socket writes it: in decimal, as a string or a number.
func socketID(v any) (wireID, error) {
	return readID(v, func(text string) []domain.DeviceID {
		hex := fromHex(text)
		if len(text) != gen1Digits && len(text) != gen2Digits {
			hex = ""
		}
		return []domain.DeviceID{fromDecimal(text), hex}
	})
}

// httpID reads an id as HTTP writes it: in hex. An id of digits alone may have become
// a JSON number on its way; its digits are still hex (US).
func httpID(v any) (wireID, error) {
	return readID(v, func(text string) []domain.DeviceID {
		return []domain.DeviceID{fromHex(text), fromDecimal(text)}
	})
}

// readID reads an id that is a text as it stands, or has one of the readings; "" is none.
func readID(v any, readings func(text string) []domain.DeviceID) (wireID, error) {
	text, err := idText(v)
	if err != nil {
		return wireID{}, err
	}
	if id, ok := textID(text); ok {
		return wireID{first: id}, nil
	}
	var id wireID
	for _, reading := range readings(text) {
		switch {
		case reading == "" || reading == id.first:
		case id.first == "":
			id.first = reading
		default:
			id.second = reading
		}
	}
	if id.first == "" {
		return wireID{}, fmt.Errorf("cloud: device id %.40q is neither decimal nor hex", text)
	}
	return id, nil
}

// resolve returns the device that is meant: the first reading, unless only the second
// is known. A nil function knows none.
func (w wireID) resolve(known func(domain.DeviceID) bool) domain.DeviceID {
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
	return "", errors.New("cloud: device id is missing or neither text nor number")
}

// textID reads an id that stays as it is: those of Bluetooth and Z-Wave devices begin
// with X (US).
func textID(s string) (domain.DeviceID, bool) {
	if !strings.HasPrefix(s, "X") || len(s) > maxTextID || strings.Contains(s, ":") {
		return "", false
	}
	id, err := domain.ParseDeviceID(s)
	return id, err == nil
}

func fromDecimal(s string) domain.DeviceID {
	n, err := strconv.ParseUint(s, 10, 4*gen2Digits)
	if err != nil || len(s) > maxDecimal {
		return ""
	}
	return padded(strconv.FormatUint(n, 16))
}

func fromHex(s string) domain.DeviceID {
	if _, err := strconv.ParseUint(s, 16, 64); err != nil || len(s) > gen2Digits {
		return ""
	}
	return padded(strings.ToLower(s))
}

func padded(hex string) domain.DeviceID {
	digits := gen1Digits
	if len(hex) > gen1Digits {
		digits = gen2Digits
	}
	return domain.DeviceID(strings.Repeat("0", digits-len(hex)) + hex)
}

// socketText writes a device's id as the socket expects it.
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
