// Package reactions runs a process's reactions to events of the log.
//
// Each system has a queue of its own. The events of one system are handled in order, one at a
// time. Systems are handled independently and in rotation, a bounded number of them at once. A
// slow reaction frees its worker for others, up to a higher bound. A reaction that fails is
// retried after a pause, in which other systems are handled, and finally becomes a dead letter.
// If the queue of a system is full, the dispatcher reads the rest from the log later, so the
// reader of the log never waits and no event is lost.
//
// The parts: queues is the pure core, without goroutine, clock or I/O. A [Dispatcher] runs
// reactions by it. [Follow] feeds it from the log. [DeadLetters] stores the events whose
// reaction was given up.
package reactions
