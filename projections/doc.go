// Package projections keeps what is made of the log in Postgres: history, the
// archive of every event with its hash chain, and read models, the current state
// of every system.
//
// A [Worker] owns partitions of the log, each one alone, and runs a [Projector]
// on each: it folds what comes and writes history, read models and its
// checkpoint in one transaction. A [Store] reads: on behalf of an actor always
// under row-level security. [Store.Rebuild] makes the read models anew from
// history, and [Store.Verify] checks the chain.
//
// Besides package migrations it is the only home of Postgres.
package projections
