// Package streams keeps the log: every event of every system, on Redis Streams.
//
// A [Log] appends through Watermill, and reads in batches with positions. A
// system's events are in one partition, which is one Redis stream; a partition
// is totally ordered, and nothing is said about the order between partitions.
// Redis keeps the newest part of each; what was trimmed is for an archive to
// give, which is why a reader that is behind the trim gets [ErrTrimmed] and
// never a silent gap.
//
// Below it, in packages of their own, is what else lives in Redis. Nothing
// outside knows of Redis or Watermill.
package streams
