package bridge

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// decodeStrict reads raw into v. encoding/json would take members in another case
// or twice, and does not say where in a document an unknown one is.
func decodeStrict(raw []byte, path string, v any) error {
	if !json.Valid(raw) {
		syntax := new(json.SyntaxError)
		if err := json.Unmarshal(raw, &struct{}{}); errors.As(err, &syntax) {
			return fmt.Errorf("%s: is not JSON at byte %d", orRoot(path), syntax.Offset)
		}
		return fmt.Errorf("%s: is not JSON", orRoot(path))
	}
	return readValue(raw, path, reflect.ValueOf(v).Elem())
}

func orRoot(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

// readValue reads valid JSON into v, level by level, so that each error knows its
// place.
func readValue(raw []byte, path string, v reflect.Value) error {
	_, texts := v.Addr().Interface().(encoding.TextUnmarshaler)
	_, own := v.Addr().Interface().(json.Unmarshaler)
	switch {
	case v.Kind() == reflect.Struct && !texts && !own:
		return readObject(raw, path, v)
	case v.Kind() == reflect.Slice && v.Type() != reflect.TypeFor[json.RawMessage]():
		return readArray(raw, path, v)
	}
	if string(raw) == "null" {
		return fmt.Errorf("%s: must not be null", orRoot(path))
	}
	if err := json.Unmarshal(raw, v.Addr().Interface()); err != nil {
		if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
			return fmt.Errorf("%s: must not be %s", orRoot(path), wrong.Value)
		}
		return fmt.Errorf("%s: %w", orRoot(path), err)
	}
	return nil
}

func readArray(raw []byte, path string, v reflect.Value) error {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil || items == nil {
		return fmt.Errorf("%s: must be an array", orRoot(path))
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		if err := readValue(item, fmt.Sprintf("%s[%d]", path, i), list.Index(i)); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

func readObject(raw []byte, path string, v reflect.Value) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return fmt.Errorf("%s: must be an object", orRoot(path))
	}
	fields := fieldsOf(v)
	var seen []string
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("%s: %w", orRoot(path), err)
		}
		name, _ := token.(string)
		at := strings.TrimPrefix(path+"."+name, ".")
		field, known := fields[name]
		switch {
		case !known:
			return fmt.Errorf("%.200s: is not known", at)
		case slices.Contains(seen, name):
			return fmt.Errorf("%s: is there twice", at)
		}
		seen = append(seen, name)
		var member json.RawMessage
		if err := decoder.Decode(&member); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w", at, err)
		}
		if err := readValue(member, at, field); err != nil {
			return err
		}
	}
	return nil
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
