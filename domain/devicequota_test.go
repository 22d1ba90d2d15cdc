package domain

import (
	"context"
	"fmt"
	"testing"
)

// An append of which nobody knows whether it was done counts as done: otherwise the
// devices that it may have made would hold no places.
func TestAdmissionIsSettledByItsAppend(t *testing.T) {
	t.Parallel()
	unknown := Fail(KindUnknownOutcome, CodeUnknownOutcome, "")
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"done":                         {nil, true},
		"refused":                      {Fail(KindConflict, CodeKeyReused, ""), false},
		"not done":                     {Fail(KindUnavailable, CodeUnavailable, ""), false},
		"unknown":                      {unknown, true},
		"unknown at the caller's end":  {fmt.Errorf("%w: %w", context.Canceled, unknown), true},
		"ended before it was appended": {context.Canceled, false},
	} {
		settled := 0
		Admission{OnSettle: func(appended bool) {
			settled++
			if appended != c.want {
				t.Errorf("%s: appended is %v", name, appended)
			}
		}}.SettleAppend(c.err)
		if settled != 1 {
			t.Errorf("%s: settled %d times", name, settled)
		}
	}
	Admission{}.SettleAppend(nil) // nothing was new
}
