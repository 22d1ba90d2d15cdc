package domain

import (
	"encoding/json"
	"strconv"
)

// Optional is a field that may be absent, null or have a value. The three are
// different things in a device update: absent means unchanged, null means not
// known, and neither ever means zero or off. Use it with the omitzero tag.
type Optional[T any] struct {
	present bool
	known   bool
	value   T
}

// Some is a present value.
func Some[T any](v T) Optional[T] { return Optional[T]{present: true, known: true, value: v} }

// Null is present, and says that the value is not known.
func Null[T any]() Optional[T] { return Optional[T]{present: true} }

// IsZero reports whether the field is absent.
func (o Optional[T]) IsZero() bool { return !o.present }

// Get returns the value and whether there is one (present and not null).
func (o Optional[T]) Get() (T, bool) { return o.value, o.known }

// apply merges the field into what is known: absent leaves it, null forgets it.
func (o Optional[T]) apply(known **T) {
	switch {
	case !o.present:
	case !o.known:
		*known = nil
	default:
		v := o.value
		*known = &v
	}
}

// MarshalJSON writes the value, or null.
func (o Optional[T]) MarshalJSON() ([]byte, error) {
	if !o.known {
		return []byte("null"), nil
	}
	return json.Marshal(o.value)
}

// UnmarshalJSON is called only for fields that are present. Booleans and numbers
// take a short way: a device update is a dozen of them, and a decoder for each
// doubles the time that the fold takes.
func (o *Optional[T]) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*o = Null[T]()
		return nil
	}
	o.present, o.known = true, true
	switch v := any(&o.value).(type) {
	case *bool:
		if s := string(b); s == "true" || s == "false" {
			*v = s == "true"
			return nil
		}
	case *float64:
		if f, err := strconv.ParseFloat(string(b), 64); err == nil {
			*v = f
			return nil
		}
	}
	return json.Unmarshal(b, &o.value) // also for the wording of an error
}
