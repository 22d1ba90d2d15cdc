package rooms

import (
	"time"

	"github.com/plugcast/plugcast/domain"
)

// reader is a subscription as the core sees it.
type reader struct {
	subscription *Subscription // the owner; the core does not use it

	filter   domain.EventFilter
	conflate bool
	encoding Encoding

	state readerState
	place domain.Cursor // everything up to here was read: it is in a frame, in conflation, or did not match
	done  domain.Cursor // everything up to here was sent, or did not match
	lost  bool          // the sequence was counted again since place was taken, so locate it again
	live  bool          // the reader has reached the head since it last read pages
	slot  int           // its index in core.idle, while idle

	conflation conflation // the collected events of a conflating reader, between two pages
}

// goBack drops the events that were collected and not sent. They will be read again.
func (r *reader) goBack() {
	r.place, r.conflation = r.done, conflation{}
}

// readerState says what a reader waits for.
type readerState uint8

const (
	parked  readerState = iota // waits for Start
	idle                       // waits for events: there are none after its place
	sending                    // waits for its sink
	reading                    // waits for a page
	gone
)

// Frame is the unit that a sink receives.
type Frame struct {
	Bytes  []byte // read only: other readers may share them
	Events int    // the number of events in it

	appended time.Time // when the first of them was appended; zero for a reader that catches up
}

// step is an action for a reader that the core requests from its caller.
type step struct {
	reader *reader
	kind   stepKind
	frame  Frame         // to deliver
	from   domain.Cursor // to restart from
}

type stepKind uint8

const (
	deliver stepKind = iota // give frame to the sink
	fetch                   // read a page from reader.place on
	restart                 // tell the sink where events continue
)

// page is the result of a read, for readers at one place.
type page struct {
	epoch   int           // the core's, when the read began
	located bool          // the readers' place was located again, and is at
	ahead   bool          // the log does not have the place
	at      domain.Cursor // the events follow it
	events  []*Encoded
}
