package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// ImportBatch is a piece of one system's log as another deployment has it, on its way into this deployment's log.
//
// The events keep their id, type, version, time, actor, correlation, causation, data and origin. Their Position is
// their place in the source's log, which shows how far a reader of that log has come. This deployment's log gives them
// a new Position, and their Seq follows from their order here.
type ImportBatch struct {
	System SystemID
	Source string // id of the deployment whose log was read
	// The batch covers the source's log after After, exclusive, up to Through, inclusive. The reader left out on
	// purpose the events in between that are not in Events.
	After, Through Position
	Events         []Event // in the order of the source's log
}

// ImportResult reports what an import did with the events of an [ImportBatch].
type ImportResult struct {
	Accepted   int      // appended now
	Duplicates int      // already here: imported from this source before, or by another route
	Own        int      // first appended here; they returned over a bridge
	Refused    int      // of those accepted: stored as undecodable, because the system may have no more devices
	Cursor     Position // in the source's log; everything up to it is imported
}

// ImportGapError reports that an [ImportBatch] begins after the place up to which the source is imported. The import
// appended none of its events, because the events in between would be lost. Read the source's log from Cursor on.
type ImportGapError struct {
	Source string
	After  Position
	Cursor Position
}

// Error implements error.
func (e *ImportGapError) Error() string {
	return fmt.Sprintf("domain: the log of %s is imported up to %s, but the batch begins after %s", e.Source, e.Cursor, e.After)
}

// MaxImportBatch is the largest number of events in an [ImportBatch] that a bridge pushes over HTTP.
const MaxImportBatch = MaxUpdatesPerBatch

// AsImported returns the event as this deployment stores it after an import from the deployment source. The envelope
// must be canonical, as [ParseEnvelope] leaves it. AsImported clears the seq, keeps the position, sets the origin if
// there is none, and brings the data into canonical form.
//
// It replaces data without a canonical form, data that does not match its type, and data beyond its type's bounds with
// an [Undecodable] that contains as much of the data as fits. No event is lost, and no unreadable data enters under a
// known type.
func (e *Event) AsImported(source string) Event {
	imported := *e
	imported.Seq = 0
	imported.Time = e.Time.UTC().Truncate(time.Microsecond)
	if imported.Origin == "" {
		imported.Origin = source
	}
	data, err := e.canonicalData()
	if wrong := e.Type.check(); err == nil && wrong != nil {
		err = fmt.Errorf("its event %w", wrong)
	}
	if err == nil {
		imported.Data = data
		err = imported.checkSize()
	}
	if err == nil {
		return imported
	}
	imported.Data = e.Data
	return imported.AsRejectedImport(err)
}

// AsRejectedImport returns the event as this deployment stores it if it does not accept the content: as an
// [Undecodable] with the reason.
func (e *Event) AsRejectedImport(reason error) Event {
	return e.AsUndecodable("came over a bridge, and "+detailOf(reason),
		map[string]string{"type": string(e.Type), "version": fmt.Sprint(e.Version), "data": string(e.Data)})
}

// detailOf returns an error's text without the code of an [Error].
func detailOf(err error) string {
	if own := new(Error); errors.As(err, &own) {
		return own.Detail
	}
	return err.Error()
}

// canonicalData returns the event's data in canonical form, or an error that says what is wrong with the data. If this
// build does not know the event's type or version, the data only has to be a JSON object.
func (e *Event) canonicalData() (json.RawMessage, error) {
	data, err := CompactJSON(e.Data)
	if err != nil {
		return nil, fmt.Errorf("its data cannot be stored: %w", err)
	}
	if !e.Known() || e.Version != currentVersion(e.Type) {
		return data, nil
	}
	if data, err = canonicalFields(data, eventTypes[e.Type].fields); err != nil {
		return nil, err
	}
	readable := Event{Type: e.Type, Version: e.Version, Data: data}
	decoded, err := readable.Decode()
	if err == nil {
		err = checkBounds(decoded)
	}
	return data, err
}

// fieldForm is the canonical form of a field of typed data.
type fieldForm int

const (
	formVerbatim     fieldForm = iota // any JSON
	formTime                          // RFC 3339 in UTC
	formInteger                       // a whole number without decimals and exponent
	formCounterFalls                  // a list of [CounterFall]
)

// formsOf returns the forms of the fields of t by their names in JSON.
func formsOf(t reflect.Type) map[string]fieldForm {
	fields := map[string]fieldForm{}
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		switch field.Type {
		case reflect.TypeFor[Optional[time.Time]](), reflect.TypeFor[*time.Time](), reflect.TypeFor[time.Time]():
			fields[name] = formTime
		case reflect.TypeFor[Optional[int]](), reflect.TypeFor[int]():
			fields[name] = formInteger
		case reflect.TypeFor[Optional[[]CounterFall]]():
			fields[name] = formCounterFalls
		default:
			fields[name] = formVerbatim
		}
	}
	return fields
}

// canonicalFields returns the compact object with its times and whole numbers in a form that readers in all languages
// parse to the same value. It rejects a known field that appears twice, and a name that differs from a known one in
// case only, because readers would disagree about them. It keeps other members.
func canonicalFields(object json.RawMessage, fields map[string]fieldForm) (json.RawMessage, error) {
	seen := make([]string, 0, 24)
	out := append(make(json.RawMessage, 0, len(object)+16), '{')
	for written, value := range members(object) {
		name := unquoteName(written)
		form, known := fields[name]
		switch {
		case !known && differsInCase(name, fields):
			return nil, fmt.Errorf("its field %s differs from a known one in case only", quote(name))
		case known && slices.Contains(seen, name):
			return nil, fmt.Errorf("its field %s appears twice", quote(name))
		}
		seen = append(seen, name)
		if form != formVerbatim && string(value) != "null" {
			var err error
			if value, err = canonicalValue(value, form); err != nil {
				return nil, fmt.Errorf("its field %s %w", quote(name), err)
			}
		}
		out = append(append(append(append(out, '"'), written...), '"', ':'), value...)
		out = append(out, ',')
	}
	return append(bytes.TrimSuffix(out, []byte(",")), '}'), nil
}

func differsInCase(name string, fields map[string]fieldForm) bool {
	for known := range fields {
		if strings.EqualFold(known, name) {
			return true
		}
	}
	return false
}

func canonicalValue(value []byte, form fieldForm) ([]byte, error) {
	switch form {
	case formInteger:
		n, ok := parseInteger(string(value))
		if !ok {
			return nil, errors.New("is not a whole number")
		}
		return json.Marshal(n)
	case formCounterFalls:
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
