// Package status reads what Shelly devices say about themselves, of any
// generation: documents that are merged from full states and deltas, and the
// readings that are in them. It is pure: no clock, no I/O.
//
// Nothing that is missing is ever read as off or as zero. What cannot be what it
// should be (a text for a number, NaN, a list for an object) counts as missing.
package status

import "time"

// Document is a device's status: components by name, such as "switch:0" or
// "sys" (second generation), "relays" and "meters" (first). Numbers are float64.
type Document map[string]any

// Parse reads a JSON object. It refuses, cheaply and with an error that says why,
// what no device sends: invalid UTF-8, nesting or members beyond bounds.
func Parse(raw []byte) (Document, error) { panic("not yet") }

// Merge overlays a delta: objects merge deep, arrays and values replace, null
// removes, and an empty array for an object (as the cloud sends it) is an empty
// object.
func (d Document) Merge(delta Document) { panic("not yet") }

// Time is the device's own clock at this document, when it says so.
func (d Document) Time() (at time.Time, ok bool) { panic("not yet") }

// WakeupPeriod is how often a sleeping device wakes, or 0 for one that is awake
// all the time.
func (d Document) WakeupPeriod() time.Duration { panic("not yet") }

// Readings are the channels of the document, in order.
func (d Document) Readings() []Reading { panic("not yet") }
