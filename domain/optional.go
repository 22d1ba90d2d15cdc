package domain

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"
)

// Optional is a field that is absent, null, or has a value. In a device update, absent means unchanged and null means
// not known; neither ever means zero or off. Use it with the omitzero option in JSON tags.
type Optional[T any] struct {
	present bool
	known   bool
	value   T
}

// Some returns a field with the value v.
func Some[T any](v T) Optional[T] { return Optional[T]{present: true, known: true, value: v} }

// Null returns a field that is null.
func Null[T any]() Optional[T] { return Optional[T]{present: true} }

// IsZero reports whether the field is absent.
func (o Optional[T]) IsZero() bool { return !o.present }

// Get returns the value, and whether there is one: the field is present and not null.
func (o Optional[T]) Get() (T, bool) { return o.value, o.known }

// apply merges the field into the known value: an absent field leaves it, and null clears it.
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

// MarshalJSON returns the value, or null. It returns times in UTC.
func (o Optional[T]) MarshalJSON() ([]byte, error) {
	if !o.known {
		return []byte("null"), nil
	}
	switch v := any(o.value).(type) {
	case bool:
		return strconv.AppendBool(nil, v), nil
	case string:
		return appendJSONString(nil, v), nil
	case []string:
		return EncodeJSON(v)
	case time.Time:
		return json.Marshal(v.UTC())
	}
	return json.Marshal(o.value) // of a type without strings that HTML escapes would change
}

// UnmarshalJSON reads a value or null; encoding/json calls it only for fields that are present. It reads booleans and
// numbers without a decoder: a device update has a dozen of them, and a decoder for each doubles the time of the fold.
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
	case *int:
		if n, ok := parseInteger(string(b)); ok {
			*v = n
			return nil
		}
	case *[]string:
		return (*StringList)(v).UnmarshalJSON(b)
	case *time.Time:
		var text string
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
		var err error
		*v, err = parseInstant(text)
		return err
	}
	return json.Unmarshal(b, &o.value) // also for its error texts
}

// parseInteger parses a JSON number that is whole, in any notation: 1, 1.0 and 1e0 are the same.
func parseInteger(s string) (int, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return 0, false
	}
	return int(f), true
}

// StringList is a list of strings that rejects null as an element: encoding/json would read it as an empty string, and
// readers in other languages would not.
type StringList []string

// UnmarshalJSON implements [json.Unmarshaler].
func (t *StringList) UnmarshalJSON(b []byte) error {
	var list []*string
	if err := json.Unmarshal(b, &list); err != nil || list == nil {
		*t = nil
		return err
	}
	*t = make(StringList, len(list))
	for i, text := range list {
		if text == nil {
			return errors.New("must be an array of strings, without null")
		}
		(*t)[i] = *text
	}
	return nil
}
