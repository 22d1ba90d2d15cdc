// Package reactions runs what a process does on reading certain events of the log.
//
// Each system has a queue of its own. Events of one system are handled in order,
// one at a time; systems are handled independently, in turn, a bounded number of
// them at once. A reaction that takes long makes room for others, up to a higher
// bound. A reaction that fails is tried again after a pause, in which others
// run, and becomes a dead letter in the end. A system whose queue is full is read from the log again later, so the reader of the log never waits
// and no event is left out.
//
// The parts: queues is the pure core, without goroutine, clock or I/O. A
// [Dispatcher] runs reactions by it. [Follow] feeds it from the log. [DeadLetters]
// keeps what was given up.
package reactions
