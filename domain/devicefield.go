package domain

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"
)

// DeviceFields is the table of the fields that a device-update can set, in the order in which JSON contains them. The
// fold, validation, conflation and the Shelly devices work from it. Tests compare the JavaScript fold, its types, the
// OpenAPI document and the docs with it. A new field is a line in newDeviceFields, a field
// of [DeviceUpdate] and one of [Device].
var DeviceFields = newDeviceFields()

// DeviceField describes one field of a device, in updates and in rows.
type DeviceField struct {
	Name     string // on the wire
	Category FieldCategory
	access   fieldAccess
}

// FieldCategory tells a source that thins its readings what to do about a change of a field.
type FieldCategory int

// The categories.
const (
	FieldState   FieldCategory = iota // report a change at once
	FieldReading                      // a reading or a side note: a change can wait
	FieldContext                      // reported along with other fields: a change alone is not worth an event
	FieldClock                        // the time of the update itself, which is not a change
)

// IsPresent reports whether the update has the field, even as null.
func (f DeviceField) IsPresent(u *DeviceUpdate) bool { return f.access.present(u) }

// HasValue reports whether the update has the field and it is not null.
func (f DeviceField) HasValue(u *DeviceUpdate) bool { return f.access.hasValue(u) }

// Equal reports whether the field has the same value, or no value, in both updates. Null and absent are equal.
func (f DeviceField) Equal(a, b *DeviceUpdate) bool { return f.access.equal(a, b) }

// Copy sets the field of the update to as it is in from.
func (f DeviceField) Copy(to, from *DeviceUpdate) { f.access.copy(to, from) }

// SetNull sets the field of the update to null.
func (f DeviceField) SetNull(u *DeviceUpdate) { f.access.setNull(u) }

// UpdateFromDevice returns the update that reports all known values of the row.
func UpdateFromDevice(row *Device) DeviceUpdate {
	u := DeviceUpdate{DeviceID: row.DeviceID}
	for i := range DeviceFields {
		DeviceFields[i].access.load(&u, row)
	}
	return u
}

// fold merges the update into the row.
func (u *DeviceUpdate) fold(row *Device) {
	for i := range DeviceFields {
		DeviceFields[i].access.fold(row, u)
	}
}

// checkFields checks the update's values and removes insignificant white space from its attributes.
func (u *DeviceUpdate) checkFields() error {
	for i := range DeviceFields {
		if err := DeviceFields[i].access.check(u, DeviceFields[i].Name); err != nil {
			return err
		}
	}
	return nil
}

// newDeviceFields returns the table. It is a function so that go doc does not print it.
func newDeviceFields() []DeviceField {
	return []DeviceField{
		field("online", FieldContext, func(u *DeviceUpdate, d *Device) (*Optional[bool], **bool) { return &u.Online, &d.Online }),
		field("relayOn", FieldState, func(u *DeviceUpdate, d *Device) (*Optional[bool], **bool) { return &u.RelayOn, &d.RelayOn }),
		field("channel", FieldState, func(u *DeviceUpdate, d *Device) (*Optional[int], **int) { return &u.Channel, &d.Channel }, checkChannel),
		field("powerW", FieldReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) { return &u.PowerW, &d.PowerW }),
		field("voltageV", FieldReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) { return &u.VoltageV, &d.VoltageV }),
		field("currentA", FieldReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) { return &u.CurrentA, &d.CurrentA }),
		field("frequencyHz", FieldReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
			return &u.FrequencyHz, &d.FrequencyHz
		}),
		field("powerFactor", FieldReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
			return &u.PowerFactor, &d.PowerFactor
		}),
		field("energyWh", FieldReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
			return &u.EnergyWh, &d.EnergyWh
		}, checkEnergy),
		field("counterWh", FieldReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
			return &u.CounterWh, &d.CounterWh
		}, checkEnergy),
		fieldOf("energySince", FieldReading, time.Time.Equal,
			func(u *DeviceUpdate, d *Device) (*Optional[time.Time], **time.Time) {
				return &u.EnergySince, &d.EnergySince
			}),
		notFolded(field("energyOffsetWh", FieldReading,
			func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
				return &u.EnergyOffsetWh, &d.EnergyOffsetWh
			}, checkEnergy)),
		fieldOf("counterFalls", FieldReading, slices.Equal[[]CounterFall],
			func(u *DeviceUpdate, d *Device) (*Optional[[]CounterFall], **[]CounterFall) {
				return &u.CounterFalls, &d.CounterFalls
			}, checkCounterFalls),
		field("temperatureC", FieldReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
			return &u.TemperatureC, &d.TemperatureC
		}),
		field("source", FieldReading,
			func(u *DeviceUpdate, d *Device) (*Optional[string], **string) { return &u.Source, &d.Source }, checkString),
		fieldOf("errors", FieldState, slices.Equal[[]string],
			func(u *DeviceUpdate, d *Device) (*Optional[[]string], **[]string) { return &u.Errors, &d.Errors }, checkStrings),
		fieldOf("deviceTime", FieldClock, time.Time.Equal,
			func(u *DeviceUpdate, d *Device) (*Optional[time.Time], **time.Time) {
				return &u.DeviceTime, &d.DeviceTime
			}, checkTime),
		field("connectionId", FieldState,
			func(u *DeviceUpdate, d *Device) (*Optional[ConnectionID], **ConnectionID) {
				return &u.ConnectionID, &d.ConnectionID
			}, checkConnectionID),
		field("name", FieldState, func(u *DeviceUpdate, d *Device) (*Optional[string], **string) { return &u.Name, &d.Name }, checkString),
		{Name: "attributes", Category: FieldReading, access: attributesAccess{}},
	}
}

// fieldAccess reads and writes one field of updates and rows.
type fieldAccess interface {
	fold(row *Device, u *DeviceUpdate)
	load(u *DeviceUpdate, row *Device)
	copy(to, from *DeviceUpdate)
	present(u *DeviceUpdate) bool
	hasValue(u *DeviceUpdate) bool
	setNull(u *DeviceUpdate)
	equal(a, b *DeviceUpdate) bool
	check(u *DeviceUpdate, name string) error
}

// typedAccess is the access to a field of type T.
type typedAccess[T any] struct {
	at     func(*DeviceUpdate, *Device) (*Optional[T], **T)
	same   func(a, b T) bool
	checks []func(name string, v T) error
}

func field[T comparable](
	name string, category FieldCategory, at func(*DeviceUpdate, *Device) (*Optional[T], **T), checks ...func(string, T) error,
) DeviceField {
	return fieldOf(name, category, func(a, b T) bool { return a == b }, at, checks...)
}

func fieldOf[T any](
	name string, category FieldCategory, same func(a, b T) bool, at func(*DeviceUpdate, *Device) (*Optional[T], **T),
	checks ...func(string, T) error,
) DeviceField {
	return DeviceField{Name: name, Category: category, access: &typedAccess[T]{at: at, same: same, checks: checks}}
}

// unusedDevice is the row argument of typedAccess.at for callers that use only the update. Nothing writes to it.
var unusedDevice Device

func (t *typedAccess[T]) in(u *DeviceUpdate) *Optional[T] {
	o, _ := t.at(u, &unusedDevice)
	return o
}

func (t *typedAccess[T]) fold(row *Device, u *DeviceUpdate) {
	from, to := t.at(u, row)
	from.apply(to)
}

func (t *typedAccess[T]) load(u *DeviceUpdate, row *Device) {
	if to, from := t.at(u, row); *from != nil {
		*to = Some(**from)
	}
}

func (t *typedAccess[T]) copy(to, from *DeviceUpdate)   { *t.in(to) = *t.in(from) }
func (t *typedAccess[T]) present(u *DeviceUpdate) bool  { return t.in(u).present }
func (t *typedAccess[T]) hasValue(u *DeviceUpdate) bool { return t.in(u).known }
func (t *typedAccess[T]) setNull(u *DeviceUpdate)       { *t.in(u) = Null[T]() }

func (t *typedAccess[T]) equal(a, b *DeviceUpdate) bool {
	x, y := t.in(a), t.in(b)
	return x.known == y.known && (!x.known || t.same(x.value, y.value))
}

func (t *typedAccess[T]) check(u *DeviceUpdate, name string) error {
	v, known := t.in(u).Get()
	if !known {
		return nil
	}
	for _, check := range t.checks {
		if err := check(name, v); err != nil {
			return err
		}
	}
	return nil
}

// unfolded is the access to a field that an update may contain and the fold does not take from it, because another event
// sets it.
type unfolded struct{ fieldAccess }

func notFolded(f DeviceField) DeviceField {
	f.access = unfolded{f.access}
	return f
}

func (unfolded) fold(*Device, *DeviceUpdate) {}

// attributesAccess is the access to the publisher's free object. It is not an Optional because it keeps every token.
type attributesAccess struct{}

var jsonNull = json.RawMessage("null")

func (attributesAccess) fold(row *Device, u *DeviceUpdate) {
	switch {
	case u.Attributes == nil:
	case bytes.Equal(u.Attributes, jsonNull):
		row.Attributes = nil
	default:
		row.Attributes = u.Attributes
	}
}

func (attributesAccess) load(u *DeviceUpdate, row *Device) { u.Attributes = row.Attributes }
func (attributesAccess) copy(to, from *DeviceUpdate)       { to.Attributes = from.Attributes }
func (attributesAccess) present(u *DeviceUpdate) bool      { return u.Attributes != nil }
func (attributesAccess) setNull(u *DeviceUpdate)           { u.Attributes = jsonNull }

func (attributesAccess) hasValue(u *DeviceUpdate) bool {
	return u.Attributes != nil && !bytes.Equal(u.Attributes, jsonNull)
}

func (a attributesAccess) equal(x, y *DeviceUpdate) bool {
	return a.hasValue(x) == a.hasValue(y) && (!a.hasValue(x) || bytes.Equal(x.Attributes, y.Attributes))
}

func (attributesAccess) check(u *DeviceUpdate, _ string) error {
	var err error
	u.Attributes, err = freeObject(u.Attributes, CodeInvalidUpdate)
	return err
}
