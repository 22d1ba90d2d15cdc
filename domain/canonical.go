package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// An event in canonical form can be written again in every form that events have:
// as an entry of the log, an envelope, a row, and a line of an export. Its texts
// are UTF-8 without the character NUL, its times are UTC in the years 0000 to
// 9999, its data is one JSON object without insignificant white space, and its
// line is at most [MaxEvent] bytes.
//
// All input passes through [Event.Canonicalize]: the log appends nothing else, and
// reads nothing else. Typed data of this deployment are canonical once they are
// written. Events of another deployment go through [Event.Foreign].

// MaxEvent bounds an event, in bytes: its line in an export, envelope and all.
// An entry of a C2SP tlog-tiles log cannot be larger.
const MaxEvent = 1<<16 - 1

const (
	// maxEnvelopeText bounds each text of an envelope, in bytes: an archive indexes it.
	maxEnvelopeText = 512
	// lineOverhead bounds what a line has besides the texts of the envelope and the
	// data: names, hashes, and the longest position, seq, version, subject and origin.
	lineOverhead = 1024
)

// requireText refuses a text that cannot be kept, or is over most bytes.
func requireText(code Code, field, s string, most int) error {
	switch {
	case len(s) > most:
		return Invalid(code, fmt.Sprintf("%s is limited to %d bytes", field, most))
	case !utf8.ValidString(s):
		return Invalid(code, field+" is not UTF-8")
	case strings.IndexByte(s, 0) >= 0:
		return Invalid(code, field+" "+faultNUL)
	}
	return nil
}

// Canonicalize takes insignificant white space out of the event's data, and
// returns an [Error] with [CodeInvalidUpdate] for an event that has no canonical
// form, and [CodeInvalidSystemID] for one of no well-formed system. An event that
// has no id and no time yet may have neither. One that is canonical costs a look
// at its bytes and no allocation.
func (e *Event) Canonicalize() error {
	if _, err := ParseSystemID(string(e.SystemID)); err != nil {
		return err
	}
	if err := e.checkEnvelope(); err != nil {
		return err
	}
	data, err := canonicalObject(e.Data)
	if err != nil {
		return Invalid(CodeInvalidUpdate, "data: "+err.Error())
	}
	e.Data = data
	return e.checkSize()
}

func (e *Event) checkEnvelope() error {
	if err := e.Type.check(); err != nil {
		return Invalid(CodeInvalidUpdate, "event "+err.Error())
	}
	if e.Version < 1 || e.Version > math.MaxInt32 {
		return Invalid(CodeInvalidUpdate, fmt.Sprintf("version must be 1 to %d, not %d", math.MaxInt32, e.Version))
	}
	for _, text := range e.texts() {
		if err := requireText(CodeInvalidUpdate, text.name, text.value, maxEnvelopeText); err != nil {
			return err
		}
	}
	if e.Origin != "" {
		if _, err := ParseOrigin(e.Origin); err != nil {
			return err
		}
	}
	if _, err := writable(e.Time); err != nil {
		return Invalid(CodeInvalidUpdate, "time "+err.Error())
	}
	return nil
}

type namedText struct{ name, value string }

// texts are the free texts of the envelope.
func (e *Event) texts() [5]namedText {
	return [...]namedText{
		{"id", e.ID}, {"event", string(e.Type)}, {"actor", e.Actor}, {"correlationId", e.CorrelationID}, {"causationId", e.CausationID},
	}
}

// checkSize refuses an event whose line would be over MaxEvent.
func (e *Event) checkSize() error {
	if over := len(e.Data) - e.room(); over > 0 {
		return Invalid(CodeInvalidUpdate,
			fmt.Sprintf("an event is limited to %d bytes with its envelope, and this one is %d bytes too large", MaxEvent, over))
	}
	return nil
}

// room is how many bytes the event's data may have.
func (e *Event) room() int {
	size := lineOverhead + 2*len(e.SystemID)
	for _, text := range e.texts() {
		size += quotedLen(text.value)
	}
	return MaxEvent - size
}

// quotedLen is how many bytes s has as a JSON string, without its quotes.
func quotedLen(s string) (n int) {
	for _, r := range s {
		n += escapedLen(r)
	}
	return n
}

// escapedLen is how many bytes a character has in a JSON string.
func escapedLen(r rune) int {
	switch {
	case r == '"', r == '\\', r == '\n', r == '\r', r == '\t', r == '\b', r == '\f':
		return 2
	case r < 0x20, r == '\u2028', r == '\u2029':
		return 6
	}
	return utf8.RuneLen(r)
}

// Foreign makes the event one that came from the source: it gets its origin, if
// it has none, and its data the canonical form. Data that have none, that are not
// what their type says, or that are beyond its bounds, are replaced by an
// [Undecodable] that has the whole of them where it fits. So nothing that happened
// elsewhere is lost, and nothing that cannot be read gets in under a known name.
// The envelope is taken to be canonical; the position stays.
func (e *Event) Foreign(source string) Event {
	foreign := *e
	foreign.Seq = 0
	foreign.Time = e.Time.UTC().Truncate(time.Microsecond)
	if foreign.Origin == "" {
		foreign.Origin = source
	}
	data, err := e.canonicalData()
	if wrong := e.Type.check(); err == nil && wrong != nil {
		err = fmt.Errorf("its event %w", wrong)
	}
	if err == nil {
		foreign.Data = data
		err = foreign.checkSize()
	}
	if err == nil {
		return foreign
	}
	return foreign.Undecodable("came over a bridge, and "+detailOf(err),
		map[string]string{"type": string(e.Type), "version": fmt.Sprint(e.Version), "data": string(e.Data)})
}

// detailOf returns the detail of an error, without its code.
func detailOf(err error) string {
	if own := new(Error); errors.As(err, &own) {
		return own.Detail
	}
	return err.Error()
}

// canonicalData is the event's data in canonical form, or an error that says what
// is wrong with it. Data of a type that this build does not know are only
// looked at as JSON.
func (e *Event) canonicalData() (json.RawMessage, error) {
	data, err := canonicalObject(e.Data)
	if err != nil {
		return nil, fmt.Errorf("its data cannot be kept: %w", err)
	}
	if !e.Known() || e.Version != currentVersion(e.Type) {
		return data, nil
	}
	if data, err = canonicalFields(data, kinds[e.Type].fields); err != nil {
		return nil, err
	}
	readable := Event{Type: e.Type, Version: e.Version, Data: data}
	decoded, err := readable.Decode()
	if err == nil {
		err = checkBounds(decoded)
	}
	return data, err
}

// form is how a field of typed data is written.
type form int

const (
	asItIs  form = iota
	instant      // RFC 3339 in UTC
	whole        // a whole number
	falls        // a list of [CounterFall]
)

func fieldsOf(t reflect.Type) map[string]form {
	fields := map[string]form{}
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		switch field.Type {
		case reflect.TypeFor[Optional[time.Time]](), reflect.TypeFor[*time.Time](), reflect.TypeFor[time.Time]():
			fields[name] = instant
		case reflect.TypeFor[Optional[int]](), reflect.TypeFor[int]():
			fields[name] = whole
		case reflect.TypeFor[Optional[[]CounterFall]]():
			fields[name] = falls
		default:
			fields[name] = asItIs
		}
	}
	return fields
}

// canonicalFields returns the compact object with its times and whole numbers in
// the form that readers in all languages take for the same. It refuses a field
// that appears twice, and one whose name differs from a known one in case alone:
// readers would not agree about them. Other members pass.
func canonicalFields(object json.RawMessage, fields map[string]form) (json.RawMessage, error) {
	seen := make([]string, 0, 24)
	out := append(make(json.RawMessage, 0, len(object)+16), '{')
	for written, value := range members(object) {
		name := unquoteName(written)
		how, known := fields[name]
		switch {
		case !known && isMisspelt(name, fields):
			return nil, fmt.Errorf("its field %s differs from a known one in case", quote(name))
		case known && slices.Contains(seen, name):
			return nil, fmt.Errorf("its field %s appears twice", quote(name))
		}
		seen = append(seen, name)
		if how != asItIs && string(value) != "null" {
			var err error
			if value, err = canonicalValue(value, how); err != nil {
				return nil, fmt.Errorf("its field %s %w", quote(name), err)
			}
		}
		out = append(append(append(append(out, '"'), written...), '"', ':'), value...)
		out = append(out, ',')
	}
	return append(bytes.TrimSuffix(out, []byte(",")), '}'), nil
}

func isMisspelt(name string, fields map[string]form) bool {
	for known := range fields {
		if strings.EqualFold(known, name) {
			return true
		}
	}
	return false
}

func canonicalValue(value []byte, how form) ([]byte, error) {
	switch how {
	case whole:
		n, ok := parseWhole(string(value))
		if !ok {
			return nil, errors.New("is not a whole number")
		}
		return json.Marshal(n)
	case falls:
		var list Optional[[]CounterFall]
		if err := list.UnmarshalJSON(value); err != nil {
			return nil, err
		}
		return list.MarshalJSON()
	}
	var at Optional[time.Time]
	if err := at.UnmarshalJSON(value); err != nil {
		if errors.As(err, new(*json.UnmarshalTypeError)) {
			err = errNoTime
		}
		return nil, err
	}
	return at.MarshalJSON()
}
