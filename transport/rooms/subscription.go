package rooms

import (
	"github.com/plugcast/plugcast/domain"
)

// Sink is where a reader's frames go: a socket, in the end.
type Sink interface {
	// Deliver takes a frame. It must not block, and must not call
	// [Subscription.Sent] before it returns. There is one frame at a time: the next
	// comes after [Subscription.Sent].
	Deliver(Frame)

	// Restarted says that the log has the reader's place no more, as after a
	// Redis that came back empty: what was between is lost, and events go on
	// after the given place. It comes when no frame is out.
	Restarted(from domain.Cursor)
}

// PanicHandler is what a [Sink] may be as well. Panicked is called when a method of the
// sink or its encoding panicked: it closes the socket, which gets no more frames.
type PanicHandler interface{ Panicked() }

// Subscription is a reader's place in its system. Its methods are safe for concurrent
// use.
type Subscription struct {
	room   *room
	sink   Sink
	reader reader
}

// System returns the system that the cursor reads.
func (c *Subscription) System() domain.SystemID { return c.room.system }

// Start lets events flow. Until it is called the sink gets nothing, so that a
// face can say first where the reader is.
func (c *Subscription) Start() {
	r := c.room
	var buf [1]step
	r.perform(func() []step {
		r.mu.Lock()
		defer r.mu.Unlock()
		steps := r.core.start(&c.reader, buf[:0])
		r.fetch(steps)
		return steps
	}())
}

// Sent says that the frame which was delivered last is out. If there is more,
// it is delivered before Sent returns or, if it has to be read, later.
func (c *Subscription) Sent() {
	r := c.room
	var buf [1]step
	r.perform(func() []step {
		r.mu.Lock()
		defer r.mu.Unlock()
		steps := r.core.sent(&c.reader, buf[:0])
		r.fetch(steps)
		return steps
	}())
}

// Progress returns a place up to which the sink has sent everything that the
// filter lets through. For a reader that is not behind it is the newest event,
// whether that passes the filter or not.
func (c *Subscription) Progress() domain.Cursor {
	c.room.mu.Lock()
	defer c.room.mu.Unlock()
	return c.room.core.progress(&c.reader)
}

// Leave ends the reading. The sink may get one more frame that was on its way.
// Leaving twice is fine.
func (c *Subscription) Leave() {
	r := c.room
	if r.remove(&c.reader) {
		r.hub.exit(r)
	}
}
