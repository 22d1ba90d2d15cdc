// Package strictjson reads JSON to the letter: names of members are compared with
// their case, a member that is there twice is refused, and so is text that is not
// UTF-8. encoding/json takes all of these, and two readers of one document may then
// take different values from it.
package strictjson

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Reader reads JSON into structs.
type Reader struct {
	Whole        string // what errors call a document that has no path, such as "the configuration"
	NullIsAbsent bool   // a member that is null is as if it were not there; otherwise it is refused
}

// Decode reads raw into the struct that v points to, and refuses members that it
// does not have. Errors begin with the place: path is that of the document itself.
func (r Reader) Decode(raw []byte, path string, v any) error {
	if err := check(raw); err != nil {
		return fmt.Errorf("%s: %w", r.at(path), err)
	}
	return r.value(raw, path, reflect.ValueOf(v).Elem())
}

// Members returns the members of an object as they are written. Those that the
// caller does not know are there as well.
func Members(raw []byte) (map[string]json.RawMessage, error) {
	if err := check(raw); err != nil {
		return nil, err
	}
	members := map[string]json.RawMessage{}
	err := each(raw, func(name string, value json.RawMessage) error {
		if _, twice := members[name]; twice {
			return fmt.Errorf("%.80s: is there twice", name)
		}
		members[name] = value
		return nil
	})
	return members, err
}

// check refuses what is not JSON in UTF-8.
func check(raw []byte) error {
	if !utf8.Valid(raw) {
		return errors.New("is not UTF-8")
	}
	if !json.Valid(raw) {
		syntax := new(json.SyntaxError)
		if err := json.Unmarshal(raw, &struct{}{}); errors.As(err, &syntax) {
			return fmt.Errorf("is not JSON at byte %d", syntax.Offset)
		}
		return errors.New("is not JSON")
	}
	return nil
}

// each calls f for each member of an object in valid JSON, until it fails.
func each(raw []byte, f func(name string, value json.RawMessage) error) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return errors.New("must be an object")
	}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return err
		}
		name, _ := token.(string)
		if err := f(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (r Reader) at(path string) string { return cmp.Or(path, r.Whole) }

// value reads valid JSON into v, level by level, so that each error knows its
// place.
func (r Reader) value(raw []byte, path string, v reflect.Value) error {
	_, texts := v.Addr().Interface().(encoding.TextUnmarshaler)
	_, own := v.Addr().Interface().(json.Unmarshaler)
	switch {
	case v.Kind() == reflect.Struct && !texts && !own:
		return r.object(raw, path, v)
	case v.Kind() == reflect.Slice && v.Type() != reflect.TypeFor[json.RawMessage]():
		return r.array(raw, path, v)
	}
	if string(raw) == "null" {
		return fmt.Errorf("%s: must not be null", r.at(path))
	}
	if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
		if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
			return fmt.Errorf("%s: must not be %s", r.at(path), wrong.Value)
		}
		return fmt.Errorf("%s: %w", r.at(path), err)
	}
	return nil
}

func (r Reader) array(raw []byte, path string, v reflect.Value) error {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil || items == nil {
		return fmt.Errorf("%s: must be an array", r.at(path))
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		if err := r.value(item, fmt.Sprintf("%s[%d]", path, i), list.Index(i)); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

func (r Reader) object(raw []byte, path string, v reflect.Value) error {
	if bytes.TrimLeft(raw, " \t\r\n")[0] != '{' {
		return fmt.Errorf("%s: must be an object", r.at(path))
	}
	fields := fieldsOf(v)
	seen := map[string]bool{}
	return each(raw, func(name string, value json.RawMessage) error {
		at := strings.TrimPrefix(path+"."+name, ".")
		field, known := fields[name]
		switch {
		case !known:
			return fmt.Errorf("%.200s: is not known", at)
		case seen[name]:
			return fmt.Errorf("%s: is there twice", at)
		}
		seen[name] = true
		if r.NullIsAbsent && string(value) == "null" {
			return nil
		}
		return r.value(value, at, field)
	})
}

// fieldsOf lists the fields of a struct by their names in JSON, with those of the
// structs that it embeds.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "":
			for inner, value := range fieldsOf(v.Field(i)) {
				fields[inner] = value
			}
		case name != "" && name != "-" && field.IsExported():
			fields[name] = v.Field(i)
		}
	}
	return fields
}
