package rooms

import (
	"github.com/plugcast/plugcast/domain"
)

// Sink receives the frames of a subscription. A face implements it, and sends them to a
// client.
type Sink interface {
	// Deliver takes a frame. It must not block, and must not call
	// [Subscription.Sent] before it returns. One frame is in flight at a time: the next
	// comes after [Subscription.Sent].
	Deliver(Frame)

	// Restarted tells the sink that the log no longer contains the reader's place, for
	// example after Redis came back empty. The events in between are lost, and events
	// continue after the given place. No frame is in flight during the call.
	Restarted(from domain.Cursor)
}

// PanicHandler is an optional part of a [Sink]. Panicked is called when a method of the sink
// or its encoding panicked: it closes the socket, which gets no more frames.
type PanicHandler interface{ Panicked() }

// Subscription delivers the events of one system to a [Sink]. Its methods are safe for
// concurrent use.
type Subscription struct {
	room   *room
	sink   Sink
	reader reader
}

// System returns the system of the subscription.
func (c *Subscription) System() domain.SystemID { return c.room.system }

// Start starts the events. The sink gets nothing before it, so that a face can first tell
// the client where it begins.
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

// Sent reports that the last frame has been sent. If more events are ready, they are
// delivered before Sent returns; if they have to be read from history, later.
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

// Progress returns a place up to which the sink has sent everything that the filter
// matches. For a reader that keeps up it is the newest event, whether or not that matches.
func (c *Subscription) Progress() domain.Cursor {
	c.room.mu.Lock()
	defer c.room.mu.Unlock()
	return c.room.core.progress(&c.reader)
}

// Leave ends the subscription. The sink may still get one frame that was already on its
// way. Leaving twice is fine.
func (c *Subscription) Leave() {
	r := c.room
	if r.remove(&c.reader) {
		r.hub.exit(r)
	}
}
