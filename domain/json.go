package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"
)

// maxDepth bounds how deep JSON that is kept may nest.
const maxDepth = 512

// EncodeJSON writes v as JSON, without the escapes for HTML that
// encoding/json adds: free objects of publishers pass through as they came.
func EncodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// CheckJSON returns an error that says why raw is not JSON that can be kept:
// JSON in UTF-8 without the character NUL and without half of a surrogate pair in
// any of its texts. Databases refuse the first, and everything else replaces the
// others by something that was not sent. Where the fault is inside a member of
// the outermost object, the error names it.
func CheckJSON(raw []byte) error {
	s, err := scan(raw)
	if err == nil && s.fault != "" {
		return &textError{at: s.at, fault: s.fault}
	}
	return err
}

// ValidJSON returns an error that says why raw is not JSON in UTF-8. Unlike
// [CheckJSON] it takes any text: it is for what is read and not kept.
func ValidJSON(raw []byte) error {
	_, err := scan(raw)
	return err
}

func scan(raw []byte) (scanner, error) {
	s := scanner{b: raw}
	if mark := byteOrderMark(raw); mark != "" {
		return s, fmt.Errorf("it begins with a byte order mark (BOM, %s); send it without", mark)
	}
	if s.space(); s.i == len(raw) {
		return s, errors.New("it is empty")
	}
	wellFormed := s.value(0) && s.end()
	switch {
	case !utf8.Valid(raw):
		return s, errNotUTF8
	case s.deep:
		return s, fmt.Errorf("it nests deeper than %d levels, at byte %d", maxDepth, s.i)
	case !wellFormed:
		return s, fmt.Errorf("it is not valid JSON at byte %d", s.i)
	}
	return s, nil
}

// CheckOnce returns an error that names a member that an object in raw has twice, at
// whatever depth: two readers of it may take different values. Below members called
// free the objects are the sender's own, and are passed over. raw is valid JSON.
func CheckOnce(raw []byte, free string) error {
	s := scanner{b: raw}
	s.space()
	return s.once(free)
}

func (s *scanner) once(free string) error {
	opening := s.peek()
	if opening != '{' && opening != '[' {
		s.value(0)
		return nil
	}
	s.i++
	var seen map[string]bool
	for s.space(); s.peek() != opening+2; s.space() { // in ASCII, the brackets and braces are two apart
		own := false
		if opening == '{' {
			from := s.i + 1
			if !s.text() {
				return nil
			}
			name := unquoteName(s.b[from : s.i-1])
			if seen[name] {
				return fmt.Errorf("field %s appears twice", quote(name))
			}
			if seen == nil {
				seen = map[string]bool{}
			}
			seen[name], own = true, name == free
			s.space()
			s.take(':')
			s.space()
		}
		if own {
			s.value(0)
		} else if err := s.once(free); err != nil {
			return err
		}
		s.space()
		if !s.take(',') && s.peek() != opening+2 {
			return nil
		}
	}
	s.i++
	return nil
}

// textError says what is wrong with a text in JSON.
type textError struct{ at, fault string }

// Error implements error.
func (e *textError) Error() string {
	if e.at == "" {
		return "it " + e.fault
	}
	return "field " + quote(e.at) + " " + e.fault
}

var (
	errNotUTF8   = errors.New("it is not UTF-8")
	errNotObject = errors.New("it is not a JSON object")
)

// CleanJSON makes JSON that [CheckJSON] takes of JSON that has texts which cannot
// be kept, as [CleanText] does with a text. It is for what servers of others say.
// Anything else that is wrong with raw stays.
func CleanJSON(raw []byte) []byte {
	if CheckJSON(raw) == nil {
		return raw
	}
	raw = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		n := 1
		if raw[i] == '\\' { // in JSON, only texts have any
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

// byteOrderMark names the byte order mark that raw begins with, or is "".
func byteOrderMark(raw []byte) string {
	switch {
	case bytes.HasPrefix(raw, []byte("\xef\xbb\xbf")):
		return "UTF-8"
	case bytes.HasPrefix(raw, []byte("\xff\xfe")), bytes.HasPrefix(raw, []byte("\xfe\xff")):
		return "UTF-16"
	}
	return ""
}

// scanObject reports whether b is one JSON object that can be kept, and whether
// there is insignificant white space in it. Every process looks at every event
// that it reads, since one that is not JSON would break each frame and each row
// that it is part of; json.Valid takes four times as long.
func scanObject(b []byte) (ok, loose bool) {
	s := scanner{b: b}
	s.space()
	ok = s.peek() == '{' && s.value(0) && s.end() && s.fault == "" && utf8.Valid(b)
	return ok, s.loose
}

// CompactJSON returns one JSON object that can be kept without insignificant white
// space: two writings of it that differ in nothing else give the same.
func CompactJSON(raw []byte) ([]byte, error) { return canonicalObject(raw) }

// canonicalObject returns raw, one JSON object that can be kept (see [CheckJSON]),
// without insignificant white space, and so as one line. Its tokens stay as they are: the texts of numbers and strings, the order of
// members, also members that are there twice.
func canonicalObject(raw []byte) (json.RawMessage, error) {
	ok, loose := scanObject(raw)
	switch {
	case ok && !loose:
		return raw, nil
	case ok:
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return nil, err // unreachable: it is JSON
		}
		return b.Bytes(), nil
	}
	if err := CheckJSON(raw); err != nil {
		return nil, err
	}
	return nil, errNotObject
}

// scanner reads JSON (RFC 8259) as encoding/json accepts it, once and without
// allocating. It notes faults in texts and continues.
type scanner struct {
	b     []byte
	i     int
	loose bool   // there is insignificant white space
	deep  bool   // it nests too deep to be read
	fault string // the first thing that is wrong with a text
	at    string // the member of the outermost object that the fault is in
	outer [2]int // that member's name, while it is read
}

// The faults of texts.
const (
	faultNUL  = "has the character NUL, which cannot be stored"
	faultHalf = "has half of a surrogate pair, which is no character"
)

func (s *scanner) note(fault string) {
	if s.fault == "" {
		s.fault, s.at = fault, string(s.b[s.outer[0]:s.outer[1]])
	}
}

func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
			s.loose = true
		default:
			return
		}
	}
}

func (s *scanner) end() bool {
	s.space()
	return s.i == len(s.b)
}

func (s *scanner) value(depth int) bool {
	if depth > maxDepth {
		s.deep = true
		return false
	}
	switch c := s.peek(); c {
	case '"':
		return s.text()
	case '{':
		return s.list('}', depth)
	case '[':
		return s.list(']', depth)
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

// list reads items with commas between, from its opening to its closing sign.
func (s *scanner) list(closing byte, depth int) bool {
	s.i++
	s.space()
	if s.take(closing) {
		return true
	}
	for {
		if closing == '}' && !s.name(depth) {
			return false
		}
		if !s.value(depth + 1) {
			return false
		}
		s.space()
		if s.take(closing) {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

// name reads a member's name and the colon behind it.
func (s *scanner) name(depth int) bool {
	from := s.i + 1
	if depth == 0 {
		s.outer = [2]int{}
	}
	if !s.text() {
		return false
	}
	if depth == 0 {
		s.outer = [2]int{from, s.i - 1}
	}
	s.space()
	if !s.take(':') {
		return false
	}
	s.space()
	return true
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func (s *scanner) text() bool {
	if !s.take('"') {
		return false
	}
	for s.i < len(s.b) {
		c := s.b[s.i]
		s.i++
		switch {
		case c == '"':
			return true
		case c < 0x20:
			return false
		case c == '\\':
			if !s.escape() {
				return false
			}
		}
	}
	return false
}

func (s *scanner) escape() bool {
	c := s.peek()
	s.i++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		return s.unicode()
	}
	return false
}

// unicode reads the four digits of an escape, and the second half of a pair.
func (s *scanner) unicode() bool {
	r, ok := s.hex()
	switch {
	case !ok:
		return false
	case r == 0:
		s.note(faultNUL)
	case 0xDC00 <= r && r < 0xE000:
		s.note(faultHalf)
	case 0xD800 <= r && r < 0xDC00:
		before := s.i
		if !s.word(`\u`) {
			s.note(faultHalf)
			return true
		}
		second, ok := s.hex()
		if !ok {
			return false
		}
		if second < 0xDC00 || second >= 0xE000 {
			s.i = before // an escape of its own
			s.note(faultHalf)
		}
	}
	return true
}

func (s *scanner) hex() (r rune, ok bool) {
	for range 4 {
		c := s.peek()
		s.i++
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

// members yields the members of the object raw: their names as they are written,
// without quotes, and their values. raw is valid JSON, and anything but an object
// has none.
func members(raw []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		s := scanner{b: raw}
		s.space()
		if !s.take('{') {
			return
		}
		for s.space(); s.peek() == '"'; s.space() {
			from := s.i + 1
			if !s.text() {
				return
			}
			name := raw[from : s.i-1]
			s.space()
			s.take(':')
			s.space()
			from = s.i
			if !s.value(1) || !yield(name, raw[from:s.i]) {
				return
			}
			s.space()
			s.take(',')
		}
	}
}

// JSONMembers yields the members of the object raw with the names that they have
// when escapes are undone, in order, also those that are there twice. raw is valid
// JSON, and anything but an object has none. The values are parts of raw.
func JSONMembers(raw []byte) iter.Seq2[string, []byte] {
	return func(yield func(name string, value []byte) bool) {
		for written, value := range members(raw) {
			if !yield(unquoteName(written), value) {
				return
			}
		}
	}
}

// IsJSONObject reports whether raw, which is valid JSON, is an object.
func IsJSONObject(raw []byte) bool {
	s := scanner{b: raw}
	s.space()
	return s.peek() == '{'
}

// unquoteName is the name that a member's written name stands for.
func unquoteName(written []byte) string {
	if bytes.IndexByte(written, '\\') < 0 {
		return string(written)
	}
	var name string
	quoted := append(append([]byte{'"'}, written...), '"')
	if json.Unmarshal(quoted, &name) != nil {
		return string(written)
	}
	return name
}
