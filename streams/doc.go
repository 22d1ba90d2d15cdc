// Package streams is the log: every event of every system, on Redis Streams.
//
// A [Log] appends through Watermill, and reads in batches with positions. All events of a
// system are in one partition, which is one Redis stream. A partition is totally ordered;
// there is no order between partitions. Redis keeps the newest part of each partition, and an
// archive has the rest. A reader that is behind the trimmed part gets [ErrTrimmed] and never a
// silent gap.
//
// # Reading
//
// [Log.Read] returns one page. [Log.Follow] is for a consumer that wants every event. It
// guarantees:
//
//   - Every entry after the start comes once, in the order of its partition, from one call of
//     the function at a time. An entry that cannot be decoded comes as
//     [domain.TypeUndecodable].
//   - A slow or blocked consumer delays no other. A bounded number of its entries waits in
//     memory; the rest stays in Redis.
//   - Where entries may be missing, because the log was trimmed, wiped or set back, Follow
//     returns [ErrTrimmed] or [ErrRewound] before it passes on any later entry. The consumer
//     starts again from the archive, or with [Log.Nearest].
//   - While Redis is away, Follow waits.
//
// A process reads the log once, however many consumers it has. A reader has one blocking XREAD
// over up to 64 partitions with consumers (in a cluster, one reader for each partition). It
// decodes each entry once and offers the batch to the consumers. It reads new entries only, and
// runs only while it has consumers. A consumer that starts in the past, or falls behind, reads
// pages on its own and then joins the reader: see handover, which is pure code.
//
// The reader never decides that a consumer lost entries. If a partition does not continue where
// the reader is, the reader cuts its consumers off. Each of them then checks for itself with its
// next page, which begins with the last entry that it had. So [ErrTrimmed] and [ErrRewound] are
// decided in one place, and a consumer that lost nothing continues.
//
// The packages below this one hold the other data that lives in Redis. Only this package and
// those below it import go-redis and Watermill.
package streams
