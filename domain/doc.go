// Package domain holds the rules of plugcast, free of I/O: the events, the state that they fold into, and the
// commands that turn a request into events.
//
// An [Event] is a fact in the log of one system (a tenant). It has typed [Data], and the log gives it a [Position];
// its seq counts the system's events. A [Cursor] combines the two into a reader's place in the history.
//
// [State.Apply] folds events into a [State]. It is the only code on the server that does: read models, rebuilds and as-of
// reads all call it. The JavaScript client has a Fold of its own, and a test compares the two. The table [DeviceFields]
// drives how a device's fields are merged, checked and compared.
//
// A [Command] checks itself, names the part of the state that it needs, and decides which events follow. [Service]
// runs commands: it authorizes the [Actor], loads the state, decides, and appends on the condition that nothing newer
// was appended to the same [Aggregate]. [Service.Publish] appends device updates without a decision.
//
// Events of another deployment enter as an [ImportBatch] and become storable with [Event.AsImported]. Exports contain
// one [HashedEvent] per line; a [ChainVerifier] checks them.
//
// The package imports the standard library only. The fold and the decisions use no clock, goroutine or logger, so the
// same events give the same state on every node and at any time. The package declares what it needs from outside as
// the small interfaces [Log] and [StateReader].
package domain
