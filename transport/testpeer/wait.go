// Package testpeer has what all tests share: one way to wait, and a place to log to.
// The packages below it are the peers that tests talk to. The product imports none of
// them.
package testpeer

import (
	"testing"
	"time"
)

// Patience is how long a test waits for what must come: long enough for a loaded
// machine.
const Patience = time.Minute

// Eventually waits until a condition holds, and fails the test after [Patience]. It
// asks from the caller's goroutine, now and every few milliseconds. The message names
// what was waited for, and what explain, which may be nil, says then.
func Eventually(t testing.TB, what string, holds func() bool, explain ...func() string) {
	t.Helper()
	Within(t, Patience, what, holds, explain...)
}

// Within is [Eventually] for what takes longer, or must not take so long.
func Within(t testing.TB, patience time.Duration, what string, holds func() bool, explain ...func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; !holds(); pause = min(2*pause, 20*time.Millisecond) {
		if time.Now().After(deadline) {
			for _, more := range explain {
				what += "; " + more()
			}
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(pause) // what is waited for needs the processor too
	}
}
