package rooms

import (
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// CodeFenced is for who was thrown out and may not come back yet. The error has
// retryAfterMs.
const CodeFenced domain.Code = "fenced"

// Fence knows who was thrown out and may not come back yet. It answers at once
// and is safe for concurrent use.
//
// A face asks after it has put a socket, or the room or the name that a socket
// takes, where its Disconnect sees it: fences are raised before sockets are
// dropped, so of a socket and a fence that come at the same time one always sees
// the other. To ask before as well saves the work.
type Fence interface {
	// Check reports whether the actor is kept out of the system or of the whole
	// platform; of the platform alone when system is empty.
	Check(actor domain.Actor, system domain.SystemID) (Fenced, bool)
}

// Fenced says why somebody is kept out, and until when.
type Fenced struct {
	Reason    string
	CommandID string // that threw them out
	Until     time.Time
}

// CheckFence asks f, which may be nil: then nobody is kept out.
func CheckFence(f Fence, actor domain.Actor, system domain.SystemID) (Fenced, bool) {
	if f == nil {
		return Fenced{}, false
	}
	return f.Check(actor, system)
}

// Refusal is what the one who is kept out is told.
func (f Fenced) Refusal() *domain.Error {
	ms := max(time.Until(f.Until).Milliseconds(), 1)
	detail := fmt.Sprintf("thrown out, and kept out until %s", f.Until.UTC().Format(time.RFC3339))
	if f.Reason != "" {
		detail += ": " + f.Reason
	}
	return domain.Fail(domain.KindForbidden, CodeFenced, detail).With("retryAfterMs", ms)
}
