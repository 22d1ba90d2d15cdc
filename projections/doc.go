// Package projections holds what is derived from the log, in Postgres: history, which is the
// archive of every event with its hash chain, and read models, which are the current state of
// every system.
//
// A [Worker] owns partitions of the log, each of them exclusively, and runs a [Projector] for
// each. The projector folds new events, and writes history, read models and its checkpoint in
// one transaction. A [Store] reads them; reads on behalf of an actor are always under row-level
// security. [Store.Rebuild] makes the read models again from history, and [Store.Verify] checks
// the chain.
//
// Only this package, those below it, and package migrations import pgx and goose.
package projections
