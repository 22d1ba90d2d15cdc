// Package domain holds what plugcast is about, free of I/O: events, the state
// that they fold into, and the decisions that commands take on that state.
//
// It imports the standard library only, and the fold and the decisions have no
// clock, no goroutine and no log in them: the same events give the same state,
// on every node and at any time. What it needs from outside (a log to append
// to, a state to read) it declares as the small interfaces [Log] and [States].
package domain
