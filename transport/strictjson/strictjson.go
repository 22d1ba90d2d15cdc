// Package strictjson decodes JSON strictly: names of members are case-sensitive, and it
// refuses duplicate members and text that is not UTF-8. encoding/json accepts all of these,
// so that two readers of one document may see different values. Package domain defines which
// JSON is valid; this package decodes it into Go values.
package strictjson

import (
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// Reader reads JSON into structs.
type Reader struct {
	Whole        string // the name of the document in errors without a path, such as "the configuration"
	NullIsAbsent bool   // treats a null member as absent; otherwise it is refused
}

// Decode reads raw into the struct that v points to, and refuses unknown members. Errors
// begin with the path of the value; path is the path of the document itself.
func (r Reader) Decode(raw []byte, path string, v any) error {
	if err := domain.CheckJSONSyntax(raw); err != nil {
		return fmt.Errorf("%s: %w", r.at(path), err)
	}
	return r.value(raw, path, reflect.ValueOf(v).Elem())
}

// Members returns all members of an object, as raw JSON.
func Members(raw []byte) (map[string]json.RawMessage, error) {
	if err := checkObject(raw); err != nil {
		return nil, err
	}
	members := map[string]json.RawMessage{}
	for name, value := range domain.JSONMembers(raw) {
		if _, twice := members[name]; twice {
			return nil, fmt.Errorf("%.80s: appears twice", name)
		}
		members[name] = value
	}
	return members, nil
}

// Member is a known member of an object.
type Member struct {
	Name string
	Into any // a pointer for json.Unmarshal; a *json.RawMessage becomes a slice of the input
}

// Pick reads the known members of an object, at most 64, and ignores others. It is for hot
// paths: unlike [Reader], it uses no reflection of its own.
func Pick(raw []byte, known ...Member) error {
	if err := checkObject(raw); err != nil {
		return err
	}
	var seen uint64
	for name, value := range domain.JSONMembers(raw) {
		i := slices.IndexFunc(known, func(m Member) bool { return m.Name == name })
		if i < 0 {
			continue
		}
		if seen&(1<<i) != 0 {
			return fmt.Errorf("%s: appears twice", name)
		}
		seen |= 1 << i
		if into, as := known[i].Into.(*json.RawMessage); as {
			*into = value
		} else if err := json.Unmarshal(value, known[i].Into); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// checkObject refuses text that is not a JSON object in UTF-8.
func checkObject(raw []byte) error {
	if err := domain.CheckJSONSyntax(raw); err != nil {
		return err
	}
	if !domain.IsJSONObject(raw) {
		return errors.New("must be an object")
	}
	return nil
}

func (r Reader) at(path string) string { return cmp.Or(path, r.Whole) }

// value reads valid JSON into v, level by level, so that each error has a path.
func (r Reader) value(raw []byte, path string, v reflect.Value) error {
	_, texts := v.Addr().Interface().(encoding.TextUnmarshaler)
	_, own := v.Addr().Interface().(json.Unmarshaler)
	switch {
	case texts || own:
	case v.Kind() == reflect.Struct:
		return r.object(raw, path, v)
	case v.Kind() == reflect.Slice:
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
	if !domain.IsJSONObject(raw) {
		return fmt.Errorf("%s: must be an object", r.at(path))
	}
	fields := fieldsOf(v)
	seen := map[string]bool{}
	for name, value := range domain.JSONMembers(raw) {
		at := strings.TrimPrefix(path+"."+name, ".")
		field, known := fields[name]
		switch {
		case !known:
			return fmt.Errorf("%.200s: is not known", at)
		case seen[name]:
			return fmt.Errorf("%s: appears twice", at)
		}
		seen[name] = true
		if r.NullIsAbsent && string(value) == "null" {
			continue
		}
		if err := r.value(value, at, field); err != nil {
			return err
		}
	}
	return nil
}

// fieldsOf returns the fields of a struct by their JSON names, including those of embedded
// structs.
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
