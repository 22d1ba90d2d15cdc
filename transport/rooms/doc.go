// Package rooms delivers the events of systems to whoever reads them, without
// knowing any protocol: WebSocket, SSE and the rest are faces of it.
//
// A [Hub] has one room for each system that has members in this process. A room
// follows its system and keeps the newest events, encoded once each, in a tail
// of bounded size. A reader is a [Subscription]: a place in the system's sequence, a
// filter, and a [Sink] that frames are handed to. At most one frame is with the
// sink; what comes meanwhile waits in the tail, and goes out as one frame when
// the sink says that it is ready for more. A reader that falls behind the tail,
// or comes from far back, reads pages of history until it meets the tail again.
// So no reader is dropped for being slow, and what a slow one costs is one frame
// and a place.
//
// # What a reader gets
//
// Every event after its place that its filter lets through, once, in the order
// of the sequence. Places are compared by seq, which has no holes, so joining,
// replay and the meeting of replay and live need no timing: a page or a tail is
// used only from the reader's place on.
//
// # Conflation
//
// A reader that asks for it gets, when it is behind, only the newest
// device-update of each device. One exception keeps it honest: an update is left
// out only if the newer one says everything that it said (as the merged updates
// of Shelly sources always do). A partial update that names other fields, or one
// with an older device time, replaces nothing. So folding what was sent gives
// the same devices as folding everything.
//
// The first event behind events that were left out carries the member
// "skipped":{"from":seq,"to":seq} at the end of its envelope, after "data".
// Without a filter the ranges and the events that were sent make up the sequence
// without a hole. With a filter they speak only of what the filter lets through.
// The member is spliced into a copy of the encoded bytes; readers that do not
// conflate share the bytes without it.
//
// # Locks
//
// There are two kinds: the hub's (which rooms there are, and how many members
// each has) and one per room (its tail and its readers). The pool of page
// readers has a third, which may be taken under a room's. The hub's and a room's
// are never held together. No lock is held while a Source or a Sink is called,
// so either may call back, with one exception: a Sink must not call
// [Subscription.Sent] from within [Sink.Deliver].
package rooms
