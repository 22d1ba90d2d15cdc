package domain

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"
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
	return json.Marshal(o.value) // without what HTML would have escaped
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
	case *int:
		if n, ok := parseWhole(string(b)); ok {
			*v = n
			return nil
		}
	case *[]string:
		return (*Texts)(v).UnmarshalJSON(b)
	case *time.Time:
		var text string
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
		var err error
		*v, err = parseInstant(text)
		return err
	}
	return json.Unmarshal(b, &o.value) // also for the wording of an error
}

// parseWhole reads a JSON number that is a whole one, however it is written:
// 1, 1.0 and 1e0 are the same.
func parseWhole(s string) (int, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return 0, false
	}
	return int(f), true
}

// Texts is a list of texts. Null is none: encoding/json would take it for an empty
// one, and readers in other languages would not.
type Texts []string

// UnmarshalJSON implements [json.Unmarshaler].
func (t *Texts) UnmarshalJSON(b []byte) error {
	var list []*string
	if err := json.Unmarshal(b, &list); err != nil || list == nil {
		*t = nil
		return err
	}
	*t = make(Texts, len(list))
	for i, text := range list {
		if text == nil {
			return errors.New("must be an array of strings, without null")
		}
		(*t)[i] = *text
	}
	return nil
}
