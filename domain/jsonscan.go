package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"
)

// maxDepth limits the nesting of JSON.
const maxDepth = 512

// scan reads all of raw, and returns an error that says why it is not JSON. Faults in strings are not errors: they are
// in the scanner.
func scan(raw []byte) (scanner, error) {
	s := scanner{b: raw}
	if mark := byteOrderMark(raw); mark != "" {
		return s, fmt.Errorf("it begins with a byte order mark (BOM, %s); remove it", mark)
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

// scanObject reports whether b is one storable JSON object, and whether it has insignificant white space. Every process
// scans every event that it reads, because an event that is not JSON would break every frame and row that contains it.
// json.Valid takes four times as long.
func scanObject(b []byte) (ok, loose bool) {
	s := scanner{b: b}
	s.space()
	ok = s.peek() == '{' && s.value(0) && s.end() && s.fault == "" && utf8.Valid(b)
	return ok, s.loose
}

// members yields the members of the object raw: their names as written, without quotes, and their values. raw must be
// valid JSON. Anything but an object has no members.
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

// unquoteName returns a member's name without the escapes of its written form.
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

// scanner reads JSON (RFC 8259) as encoding/json accepts it, in one pass and without allocations. It notes the first
// fault in a string and continues.
type scanner struct {
	b     []byte
	i     int
	loose bool   // it found insignificant white space
	deep  bool   // it found more than maxDepth levels
	fault string // the first fault in a string
	at    string // the member of the outermost object with that fault
	outer [2]int // bounds in b of the name of the current member of the outermost object
}

// The faults in strings.
const (
	faultNUL  = "contains the character NUL, which cannot be stored"
	faultHalf = "contains half of a surrogate pair, which is not a character"
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

// list reads an object or an array, from its opening to its closing sign.
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

// name reads a member's name and the colon after it.
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

// unicode reads the four digits of a \u escape, and the second half of a surrogate pair.
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
			s.i = before // the next escape stands by itself
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

// checkDuplicates reads one value. See CheckDuplicateMembers.
func (s *scanner) checkDuplicates(free string) error {
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
		} else if err := s.checkDuplicates(free); err != nil {
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

// textError reports a fault in a string in JSON. at is the member of the outermost object that contains it, or "".
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

// byteOrderMark returns the encoding of the byte order mark at the beginning of raw, or "".
func byteOrderMark(raw []byte) string {
	switch {
	case bytes.HasPrefix(raw, []byte("\xef\xbb\xbf")):
		return "UTF-8"
	case bytes.HasPrefix(raw, []byte("\xff\xfe")), bytes.HasPrefix(raw, []byte("\xfe\xff")):
		return "UTF-16"
	}
	return ""
}
