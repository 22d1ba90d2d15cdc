// Package rooms delivers the events of systems to subscribers. It knows no protocol:
// WebSocket, SSE and the other faces are built on it.
//
// A [Hub] has one room for each system that has members in this process. A room follows
// its system and keeps the newest events, encoded once each, in a tail of bounded size. A
// reader is a [Subscription]: a cursor in the system's sequence, a filter, and a [Sink] that
// receives frames. The sink has at most one frame in flight; newer events wait in the tail
// and go out as one frame when the sink reports that it is ready. A reader that falls
// behind the tail, or starts far in the past, reads pages of history until it reaches the
// tail again. So no reader is dropped for being slow, and a slow reader costs one frame and
// a cursor.
//
// # Delivery
//
// A reader gets every event after its cursor that its filter matches, once, in the order
// of the sequence. Cursors are compared by seq, which has no gaps. So joining, replay and
// the switch from replay to live events need no timing: a reader takes only those events
// of a page or of the tail that directly follow its cursor.
//
// # Conflation
//
// If a reader asks for conflation and is behind, it gets only the newest device-update of
// each device. An update is dropped only if the newer one contains all its fields, as the
// merged updates of Shelly devices always do. A partial update with other fields, or an
// update with an older device time, supersedes nothing. So folding the events that were
// sent gives the same devices as folding all events.
//
// The first event after dropped events has the member "skipped":{"from":seq,"to":seq} at
// the end of its envelope, after "data". Without a filter, those ranges and the events that
// were sent form the sequence without gaps. With a filter, the ranges cover only events
// that the filter matches. The member is added to a copy of the encoded bytes; readers that
// do not conflate share the bytes without it.
//
// # Locks
//
// There are two kinds of locks: the hub's guards the list of rooms and the number of
// members of each; a room's guards its tail and its readers. The pool of page readers has a
// third, which may be taken under a room's. The hub's and a room's lock are never held
// together. No lock is held while a Source or a Sink is called, so both may call back, with
// one exception: a Sink must not call [Subscription.Sent] from within [Sink.Deliver].
package rooms
