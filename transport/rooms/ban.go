package rooms

import (
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// CodeBanned is the code for a banned client. The error has retryAfterMs.
const CodeBanned domain.Code = "banned"

// Ban tells which clients are banned. It answers at once and is safe for concurrent
// use.
//
// A face checks it after it has registered a socket, or the room or the name that a
// socket takes, where its Disconnect finds it: bans are raised before sockets are
// dropped, so a concurrent socket and ban always see each other. An additional check
// before that saves the work.
type Ban interface {
	// Check reports whether the actor is kept out of the system or of the whole
	// platform; of the platform alone when system is empty.
	Check(actor domain.Actor, system domain.SystemID) (Banned, bool)
}

// Banned says why a client is banned, and until when.
type Banned struct {
	Reason    string
	CommandID string // the command that raised the ban
	Until     time.Time
}

// CheckBan asks f, which may be nil: then nobody is kept out.
func CheckBan(f Ban, actor domain.Actor, system domain.SystemID) (Banned, bool) {
	if f == nil {
		return Banned{}, false
	}
	return f.Check(actor, system)
}

// Refusal returns the error that a banned client gets.
func (f Banned) Refusal() *domain.Error {
	ms := max(time.Until(f.Until).Milliseconds(), 1)
	detail := fmt.Sprintf("banned until %s", f.Until.UTC().Format(time.RFC3339))
	if f.Reason != "" {
		detail += ": " + f.Reason
	}
	return domain.Fail(domain.KindForbidden, CodeBanned, detail).With("retryAfterMs", ms)
}
