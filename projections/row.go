package projections

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// A row's document is the domain's own JSON form, which decodes to exactly the encoded value:
// times with their zone and nanoseconds, absent values as absent. Attributes have their own
// column, because encoding them again would change their bytes.

func deviceDocument(d *domain.Device) (document string, attributes *string, err error) {
	bare := *d
	bare.Attributes = nil
	return encodeRow(&bare, d.Attributes)
}

func readDevice(document string, attributes *string) (*domain.Device, error) {
	d := &domain.Device{}
	if err := decodeRow(document, d); err != nil {
		return nil, err
	}
	d.Attributes = rawOf(attributes)
	return d, nil
}

func equipmentDocument(e *domain.Equipment) (document string, attributes *string, err error) {
	bare := *e
	bare.Attributes = nil
	return encodeRow(&bare, e.Attributes)
}

func readEquipment(document string, attributes *string) (*domain.Equipment, error) {
	e := &domain.Equipment{}
	if err := decodeRow(document, e); err != nil {
		return nil, err
	}
	e.Attributes = rawOf(attributes)
	return e, nil
}

func connectionDocument(c *domain.Connection) (string, error) {
	document, _, err := encodeRow(c, nil)
	return document, err
}

func readConnection(document string) (*domain.Connection, error) {
	c := &domain.Connection{}
	if err := decodeRow(document, c); err != nil {
		return nil, err
	}
	return c, nil
}

func makeAssignment(device, equipment, by string, at time.Time, p pos) *domain.Assignment {
	return &domain.Assignment{
		DeviceID: domain.DeviceID(device), EquipmentID: domain.EquipmentID(equipment),
		AssignedBy: by, AssignedAt: at.UTC(), Position: p.position(),
	}
}

func encodeRow(row any, attributes json.RawMessage) (string, *string, error) {
	document, err := domain.EncodeJSON(row)
	if err != nil {
		return "", nil, &rowError{err}
	}
	if attributes == nil {
		return string(document), nil, nil
	}
	text := string(attributes)
	return string(document), &text, nil
}

// rowError means that a row has a value that JSON cannot represent.
type rowError struct{ err error }

func (e *rowError) Error() string { return "JSON cannot represent a value: " + e.err.Error() }
func (e *rowError) Unwrap() error { return e.err }

func decodeRow(document string, into any) error {
	if err := json.Unmarshal([]byte(document), into); err != nil {
		return fmt.Errorf("read a row from JSON: %w", err)
	}
	return nil
}

func rawOf(attributes *string) json.RawMessage {
	if attributes == nil {
		return nil
	}
	return json.RawMessage(*attributes)
}
