// Package streams keeps the log: every event of every system, on Redis Streams.
//
// A [Log] appends through Watermill, and reads in batches with positions. A
// system's events are in one partition, which is one Redis stream; a partition
// is totally ordered, and nothing is said about the order between partitions.
// Redis keeps the newest part of each; what was trimmed is for an archive to
// give, which is why a reader that is behind the trim gets [ErrTrimmed] and
// never a silent gap.
//
// # Reading
//
// [Log.Read] returns one page. [Log.Follow] is for a consumer that wants all that
// comes. It may rely on this:
//
//   - Every entry after the start comes once, in the order of its partition, from one
//     call of the function at a time. One that cannot be decoded comes too, as
//     [domain.TypeUndecodable].
//   - A slow or blocked consumer delays no other. What it has not taken waits in a
//     bounded memory; beyond that it stays in Redis.
//   - Where entries may be missing, because the log was trimmed, wiped or set back, Follow
//     ends with [ErrTrimmed] or [ErrRewound] before it gives anything that comes later.
//     The consumer begins again from the archive, or with [Log.Nearest].
//   - While Redis is away, Follow waits.
//
// A process reads the log once, however many consumers it has. A reader has one
// blocking XREAD over all partitions that anybody follows, up to 64 (in a cluster, one
// for each partition), decodes each entry once, and offers the batch to the
// consumers. It reads what is new, and it runs only while it has consumers. A consumer
// that starts in the past, or falls behind, reads pages on its own and then joins: see
// handover, which is pure code.
//
// The reader never decides that a consumer lost something. When a partition does not
// go on where the reader is, it cuts the consumers off, and each finds out with its
// next page, which begins with the last entry that it had. So there is one place for
// [ErrTrimmed] and [ErrRewound], and a consumer that lost nothing goes on.
//
// Below it, in packages of their own, is what else lives in Redis. Nothing
// outside knows of Redis or Watermill.
package streams
