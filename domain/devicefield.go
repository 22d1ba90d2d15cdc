package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// DeviceFields is the table of the fields that a device-update can set, in the
// order in which they are written. The fold, validation, conflation and the Shelly
// devices work from it, and tests hold the JavaScript fold, its types, the OpenAPI
// document and the docs against it. A new field is a line here, a field of
// [DeviceUpdate] and one of [Device].
var DeviceFields = []DeviceField{
	field("online", RoleContext, func(u *DeviceUpdate, d *Device) (*Optional[bool], **bool) { return &u.Online, &d.Online }),
	field("relayOn", RoleState, func(u *DeviceUpdate, d *Device) (*Optional[bool], **bool) { return &u.RelayOn, &d.RelayOn }),
	field("channel", RoleState, func(u *DeviceUpdate, d *Device) (*Optional[int], **int) { return &u.Channel, &d.Channel }, checkChannel),
	field("powerW", RoleReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) { return &u.PowerW, &d.PowerW }),
	field("voltageV", RoleReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) { return &u.VoltageV, &d.VoltageV }),
	field("currentA", RoleReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) { return &u.CurrentA, &d.CurrentA }),
	field("frequencyHz", RoleReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
		return &u.FrequencyHz, &d.FrequencyHz
	}),
	field("powerFactor", RoleReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
		return &u.PowerFactor, &d.PowerFactor
	}),
	field("energyWh", RoleReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
		return &u.EnergyWh, &d.EnergyWh
	}, checkEnergy),
	field("counterWh", RoleReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
		return &u.CounterWh, &d.CounterWh
	}, checkEnergy),
	fieldOf("energySince", RoleReading, time.Time.Equal,
		func(u *DeviceUpdate, d *Device) (*Optional[time.Time], **time.Time) {
			return &u.EnergySince, &d.EnergySince
		}),
	notFolded(field("energyOffsetWh", RoleReading,
		func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
			return &u.EnergyOffsetWh, &d.EnergyOffsetWh
		}, checkEnergy)),
	fieldOf("counterFalls", RoleReading, slices.Equal[[]CounterFall],
		func(u *DeviceUpdate, d *Device) (*Optional[[]CounterFall], **[]CounterFall) {
			return &u.CounterFalls, &d.CounterFalls
		}, checkFalls),
	field("temperatureC", RoleReading, func(u *DeviceUpdate, d *Device) (*Optional[float64], **float64) {
		return &u.TemperatureC, &d.TemperatureC
	}),
	field("source", RoleReading, func(u *DeviceUpdate, d *Device) (*Optional[string], **string) { return &u.Source, &d.Source }, checkText),
	fieldOf("errors", RoleState, slices.Equal[[]string],
		func(u *DeviceUpdate, d *Device) (*Optional[[]string], **[]string) { return &u.Errors, &d.Errors }, checkTexts),
	fieldOf("deviceTime", RoleClock, time.Time.Equal,
		func(u *DeviceUpdate, d *Device) (*Optional[time.Time], **time.Time) {
			return &u.DeviceTime, &d.DeviceTime
		}, checkInstant),
	field("connectionId", RoleState,
		func(u *DeviceUpdate, d *Device) (*Optional[ConnectionID], **ConnectionID) {
			return &u.ConnectionID, &d.ConnectionID
		}, checkConnectionID),
	field("name", RoleState, func(u *DeviceUpdate, d *Device) (*Optional[string], **string) { return &u.Name, &d.Name }, checkText),
	{Name: "attributes", Role: RoleReading, access: attributesAccess{}},
}

// DeviceField is one field of a device.
type DeviceField struct {
	Name   string // on the wire
	Role   FieldRole
	access fieldAccess
}

// FieldRole is what a change of a field means to a source that thins its readings.
type FieldRole int

// The roles.
const (
	RoleState   FieldRole = iota // a change is worth an event at once
	RoleReading                  // measured, or told along the way: a change can wait
	RoleContext                  // said along with the others: a change alone is worth no event
	RoleClock                    // the time of the update itself, which is no change at all
)

// IsIn reports whether the update speaks of the field, be it with null.
func (f DeviceField) IsIn(u *DeviceUpdate) bool { return f.access.present(u) }

// IsKnown reports whether the update has a value for the field.
func (f DeviceField) IsKnown(u *DeviceUpdate) bool { return f.access.known(u) }

// Same compares what two updates know of the field: null and absent are the same.
func (f DeviceField) Same(a, b *DeviceUpdate) bool { return f.access.same(a, b) }

// Copy makes the field of one update what it is in another.
func (f DeviceField) Copy(to, from *DeviceUpdate) { f.access.copy(to, from) }

// Forget sets the field of an update to null.
func (f DeviceField) Forget(u *DeviceUpdate) { f.access.forget(u) }

// UpdateOf is the update that says all that the row knows.
func UpdateOf(row *Device) DeviceUpdate {
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

// checkFields checks the values that the update has, and takes insignificant white
// space out of its attributes.
func (u *DeviceUpdate) checkFields() error {
	for i := range DeviceFields {
		if err := DeviceFields[i].access.check(u, DeviceFields[i].Name); err != nil {
			return err
		}
	}
	return nil
}

// fieldAccess reaches one field in updates and rows.
type fieldAccess interface {
	fold(row *Device, u *DeviceUpdate)
	load(u *DeviceUpdate, row *Device)
	copy(to, from *DeviceUpdate)
	present(u *DeviceUpdate) bool
	known(u *DeviceUpdate) bool
	forget(u *DeviceUpdate)
	same(a, b *DeviceUpdate) bool
	check(u *DeviceUpdate, name string) error
}

// typedAccess is the access to a field of type T.
type typedAccess[T any] struct {
	at     func(*DeviceUpdate, *Device) (*Optional[T], **T)
	equal  func(a, b T) bool
	checks []func(name string, v T) error
}

func field[T comparable](
	name string, role FieldRole, at func(*DeviceUpdate, *Device) (*Optional[T], **T), checks ...func(string, T) error,
) DeviceField {
	return fieldOf(name, role, func(a, b T) bool { return a == b }, at, checks...)
}

func fieldOf[T any](
	name string, role FieldRole, equal func(a, b T) bool, at func(*DeviceUpdate, *Device) (*Optional[T], **T), checks ...func(string, T) error,
) DeviceField {
	return DeviceField{Name: name, Role: role, access: &typedAccess[T]{at: at, equal: equal, checks: checks}}
}

// anyRow stands for a row where only the update is looked at. Nobody writes it.
var anyRow Device

func (t *typedAccess[T]) in(u *DeviceUpdate) *Optional[T] {
	o, _ := t.at(u, &anyRow)
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

func (t *typedAccess[T]) copy(to, from *DeviceUpdate)  { *t.in(to) = *t.in(from) }
func (t *typedAccess[T]) present(u *DeviceUpdate) bool { return t.in(u).present }
func (t *typedAccess[T]) known(u *DeviceUpdate) bool   { return t.in(u).known }
func (t *typedAccess[T]) forget(u *DeviceUpdate)       { *t.in(u) = Null[T]() }

func (t *typedAccess[T]) same(a, b *DeviceUpdate) bool {
	x, y := t.in(a), t.in(b)
	return x.known == y.known && (!x.known || t.equal(x.value, y.value))
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

// unfolded is the access to a field that an update may name and that it does not
// change: another event does.
type unfolded struct{ fieldAccess }

func notFolded(f DeviceField) DeviceField {
	f.access = unfolded{f.access}
	return f
}

func (unfolded) fold(*Device, *DeviceUpdate) {}

// attributesAccess is the access to the publisher's own object, which is kept token
// for token and so is no Optional.
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
func (attributesAccess) forget(u *DeviceUpdate)            { u.Attributes = jsonNull }

func (attributesAccess) known(u *DeviceUpdate) bool {
	return u.Attributes != nil && !bytes.Equal(u.Attributes, jsonNull)
}

func (a attributesAccess) same(x, y *DeviceUpdate) bool {
	return a.known(x) == a.known(y) && (!a.known(x) || bytes.Equal(x.Attributes, y.Attributes))
}

func (attributesAccess) check(u *DeviceUpdate, _ string) error {
	var err error
	u.Attributes, err = freeObject(u.Attributes, CodeInvalidUpdate)
	return err
}

func checkChannel(name string, n int) error {
	if n < 0 || n > 255 {
		return Invalid(CodeInvalidUpdate, name+" must be 0 to 255")
	}
	return nil
}

func checkText(name, text string) error {
	return requireText(CodeInvalidUpdate, name, text, maxText)
}

func checkInstant(name string, at time.Time) error {
	if _, err := writable(at); err != nil {
		return Invalid(CodeInvalidUpdate, name+" "+err.Error())
	}
	return nil
}

func checkTexts(name string, texts []string) error {
	if len(texts) > maxList {
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("%s holds at most %d entries", name, maxList))
	}
	for _, text := range texts {
		if err := checkText("each of "+name, text); err != nil {
			return err
		}
	}
	return nil
}

func checkConnectionID(_ string, id ConnectionID) error {
	_, err := ParseConnectionID(string(id))
	return err
}
