package rooms

import (
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// CodeBanned is for who was thrown out and may not come back yet. The error has
// retryAfterMs.
const CodeBanned domain.Code = "banned"

// Ban knows who was thrown out and may not come back yet. It answers at once
// and is safe for concurrent use.
//
// A face asks after it has put a socket, or the room or the name that a socket
// takes, where its Disconnect sees it: bans are raised before sockets are
// dropped, so of a socket and a ban that come at the same time one always sees
// the other. To ask before as well saves the work.
type Ban interface {
	// Check reports whether the actor is kept out of the system or of the whole
	// platform; of the platform alone when system is empty.
	Check(actor domain.Actor, system domain.SystemID) (Banned, bool)
}

// Banned says why somebody is kept out, and until when.
type Banned struct {
	Reason    string
	CommandID string // that threw them out
	Until     time.Time
}

// CheckBan asks f, which may be nil: then nobody is kept out.
func CheckBan(f Ban, actor domain.Actor, system domain.SystemID) (Banned, bool) {
	if f == nil {
		return Banned{}, false
	}
	return f.Check(actor, system)
}

// Refusal is what the one who is kept out is told.
func (f Banned) Refusal() *domain.Error {
	ms := max(time.Until(f.Until).Milliseconds(), 1)
	detail := fmt.Sprintf("thrown out, and kept out until %s", f.Until.UTC().Format(time.RFC3339))
	if f.Reason != "" {
		detail += ": " + f.Reason
	}
	return domain.Fail(domain.KindForbidden, CodeBanned, detail).With("retryAfterMs", ms)
}
