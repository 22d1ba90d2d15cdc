package rooms

import (
	"time"

	"github.com/plugcast/plugcast/domain"
)

// reader is a cursor as the core sees it.
type reader struct {
	subscription *Subscription // whose it is; the core does not look

	filter   domain.EventFilter
	conflate bool
	encoding Encoding

	state readerState
	place domain.Cursor // read up to here: in frames, gathered, or passed over
	done  domain.Cursor // everything up to here was sent, or passed over
	lost  bool          // the sequence was counted anew since place was taken: locate it again
	live  bool          // it was at the head since it last read pages
	slot  int           // in core.idle, while idle

	gathered conflation // of a reader that conflates, between two pages
}

// goBack forgets what was gathered and not sent: it will be read again.
func (r *reader) goBack() {
	r.place, r.gathered = r.done, conflation{}
}

// readerState says what a reader waits for.
type readerState uint8

const (
	parked  readerState = iota // to be started
	idle                       // for events: there are none behind its place
	sending                    // for its sink
	reading                    // for a page
	gone
)

// Frame is what goes to a reader's sink at a time.
type Frame struct {
	Bytes  []byte // read only: other readers may have the same
	Events int    // how many events are in it

	appended time.Time // when the first of them was appended; zero for a reader that catches up
}

// step is something to be done for a reader outside the core.
type step struct {
	reader *reader
	kind   stepKind
	frame  Frame         // to deliver
	from   domain.Cursor // to restart from
}

type stepKind uint8

const (
	deliver stepKind = iota // hand frame to the sink
	fetch                   // read a page from reader.place on
	restart                 // tell the sink where events go on
)

// page is what was read for readers at one place.
type page struct {
	epoch   int           // of the core, when reading began
	located bool          // the readers' place was located anew, and is now at
	ahead   bool          // it could not be: the log does not have it
	at      domain.Cursor // where the events follow
	events  []*Encoded
}
