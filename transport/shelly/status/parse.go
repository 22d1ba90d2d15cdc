package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Bounds of the input. A full status of a real device has about 150 members, at most
// four levels deep, in 2 KiB; other servers limit frames to 256 KiB (measured).
const (
	MaxBytes   = 256 << 10
	maxDepth   = 16
	maxMembers = 4096
)

// The errors of [Parse] and [Check].
var (
	ErrTooLarge    = errors.New("it is over 256 KiB")
	ErrTooDeep     = fmt.Errorf("it is nested more than %d deep", maxDepth)
	ErrTooMany     = fmt.Errorf("it has more than %d members", maxMembers)
	ErrNotJSON     = errors.New("it is not JSON")
	ErrNotAnObject = errors.New("it is not an object")
)

// Mend removes a byte order mark, and replaces bytes that are not allowed in a JSON text
// by U+FFFD: control characters, and bytes that are not UTF-8, as in a name of another
// encoding (measured). A device must not become unreadable for one bad byte. Control
// characters between texts, such as a NUL at the end, become spaces. Mend returns valid
// input unchanged.
func Mend(raw []byte) []byte {
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	if len(raw) > MaxBytes {
		return raw
	}
	if !utf8.Valid(raw) {
		raw = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	}
	if bytes.ContainsFunc(raw, isControl) {
		raw = withoutControls(raw)
	}
	return raw
}

func isControl(r rune) bool { return r < ' ' }

func withoutControls(raw []byte) []byte {
	out := make([]byte, 0, len(raw)+8)
	inText := false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case inText && c == '\\' && i+1 < len(raw) && !isControl(rune(raw[i+1])):
			out = append(out, c)
			i++
			c = raw[i]
		case c == '"':
			inText = !inText
		case inText && isControl(rune(c)):
			out = append(out, "\uFFFD"...)
			continue
		case isControl(rune(c)) && c != '\n' && c != '\r' && c != '\t':
			c = ' '
		}
		out = append(out, c)
	}
	return out
}

// Check rejects input that no device sends: more than [MaxBytes], or nesting or members
// beyond the bounds. It makes one pass and allocates nothing. It finds input that is
// costly to decode, and not every mistake in JSON.
func Check(raw []byte) error {
	if len(raw) > MaxBytes {
		return ErrTooLarge
	}
	depth, members := 0, 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			for i++; i < len(raw) && raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			members++
		case '}', ']':
			depth--
		case ',':
			members++
		}
		switch {
		case depth > maxDepth:
			return ErrTooDeep
		case members > maxMembers:
			return ErrTooMany
		}
	}
	return nil
}

// Parse parses a JSON object after [Mend] and [Check]. Its errors are those of the Err
// variables.
//
// When a name appears twice, the last one counts. A number beyond float64 counts as
// missing. An empty array is an empty object.
func Parse(raw []byte) (Document, error) {
	raw = Mend(raw)
	if err := Check(raw); err != nil {
		return nil, fmt.Errorf("status: parse: %w", err)
	}
	var tree any
	err := json.Unmarshal(raw, &tree)
	var beyond *json.UnmarshalTypeError
	if errors.As(err, &beyond) {
		tree, err = parseHuge(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("status: parse: %w: %w", ErrNotJSON, err)
	}
	switch tree := tree.(type) {
	case map[string]any:
		return tree, nil
	case []any:
		if len(tree) == 0 {
			return Document{}, nil
		}
	}
	return nil, fmt.Errorf("status: parse: %w", ErrNotAnObject)
}

// parseHuge parses JSON with numbers beyond float64, and leaves those out. raw is
// otherwise valid.
func parseHuge(raw []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	tree, _ = withoutHuge(tree)
	return tree, nil
}

// withoutHuge converts the numbers of a tree to float64, in place. It returns false for a
// number beyond float64: its member is removed, and in an array it becomes null, so that
// the others keep their places.
func withoutHuge(value any) (any, bool) {
	switch value := value.(type) {
	case json.Number:
		f, err := strconv.ParseFloat(string(value), 64)
		return f, err == nil
	case map[string]any:
		for name, v := range value {
			if kept, ok := withoutHuge(v); ok {
				value[name] = kept
			} else {
				delete(value, name)
			}
		}
	case []any:
		for i, v := range value {
			if kept, ok := withoutHuge(v); ok {
				value[i] = kept
			} else {
				value[i] = nil
			}
		}
	}
	return value, true
}
