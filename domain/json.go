package domain

import (
	"bytes"
	"encoding/json"
	"iter"
	"unicode/utf8"
)

// EncodeJSON returns v as JSON without the HTML escapes that encoding/json adds, so that the free objects of
// publishers pass through unchanged.
func EncodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// CheckStorableJSON returns an error that says why raw is not JSON that plugcast can store: JSON in UTF-8 with at most
// 512 levels, whose strings contain neither the character NUL nor half of a surrogate pair. Databases reject NUL, and
// other software replaces the halves by something that nobody sent. If the fault is inside a member of the outermost
// object, the error names the member.
func CheckStorableJSON(raw []byte) error {
	s, err := scan(raw)
	if err == nil && s.fault != "" {
		return &textError{at: s.at, fault: s.fault}
	}
	return err
}

// CheckJSONSyntax returns an error that says why raw is not JSON in UTF-8 with at most 512 levels. Unlike
// [CheckStorableJSON] it accepts any string. It is for JSON that is read and not stored.
func CheckJSONSyntax(raw []byte) error {
	_, err := scan(raw)
	return err
}

// CheckDuplicateMembers returns an error that names a member that an object in raw, at any depth, has twice: two
// readers may take different values for it. It does not look below members called free, because those objects belong
// to the sender. raw must be valid JSON.
func CheckDuplicateMembers(raw []byte, free string) error {
	s := scanner{b: raw}
	s.space()
	return s.checkDuplicates(free)
}

// CleanJSON returns raw with U+FFFD in place of everything in its strings that [CheckStorableJSON] rejects, as
// [CleanText] does for a text. It is for messages of devices and of other servers, which cannot be refused. It leaves
// other faults as they are.
func CleanJSON(raw []byte) []byte {
	if CheckStorableJSON(raw) == nil {
		return raw
	}
	raw = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		n := 1
		if raw[i] == '\\' { // JSON has backslashes in strings only
			s := scanner{b: raw, i: i + 1}
			if !s.escape() {
				return raw
			}
			n = s.i - i
			if s.fault != "" {
				out = append(out, `\ufffd`...)
				i += n
				continue
			}
		}
		out = append(out, raw[i:i+n]...)
		i += n
	}
	return out
}

// CompactJSON returns one JSON object without insignificant white space, and therefore on one line: two objects that
// differ in white space only give the same result. It keeps the tokens as they are: the text of numbers and strings,
// and the order of members, including repeated ones. It returns an error if raw is not an object or if
// [CheckStorableJSON] rejects it. The result is raw itself if raw is already compact.
func CompactJSON(raw []byte) (json.RawMessage, error) {
	ok, loose := scanObject(raw)
	switch {
	case ok && !loose:
		return raw, nil
	case ok:
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return nil, err // unreachable: raw is JSON
		}
		return b.Bytes(), nil
	}
	if err := CheckStorableJSON(raw); err != nil {
		return nil, err
	}
	return nil, errNotObject
}

// JSONMembers yields the members of the object raw in order, including repeated ones. It undoes the escapes in their
// names; the values are parts of raw. raw must be valid JSON. Anything but an object has no members.
func JSONMembers(raw []byte) iter.Seq2[string, []byte] {
	return func(yield func(name string, value []byte) bool) {
		for written, value := range members(raw) {
			if !yield(unquoteName(written), value) {
				return
			}
		}
	}
}

// IsJSONObject reports whether raw, which must be valid JSON, is an object.
func IsJSONObject(raw []byte) bool {
	s := scanner{b: raw}
	s.space()
	return s.peek() == '{'
}

// appendJSONString appends s as a JSON string. It copies plain ASCII, which nearly all strings are, and encodes the
// rest with the slower, exact encoder.
func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := EncodeJSON(s) // never fails for a string
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
