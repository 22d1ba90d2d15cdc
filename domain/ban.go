package domain

import (
	"fmt"
	"time"
)

// Ban keeps out every client that matches all of Subject and Role that are set, in one system or, if System is empty, in
// all of them. It ends at Until.
type Ban struct {
	System    SystemID  `json:"system,omitempty"`
	Subject   string    `json:"subject,omitempty"`
	Role      Role      `json:"role,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	CommandID string    `json:"commandId"` // the command that raised the ban
	Until     time.Time `json:"-"`
}

// Refusal returns the error for a banned client at the time now. Its parameter "retryAfterMs" is the rest of the ban.
func (b Ban) Refusal(now time.Time) *Error {
	ms := max(b.Until.Sub(now).Milliseconds(), 1)
	detail := fmt.Sprintf("banned until %s", b.Until.UTC().Format(time.RFC3339))
	if b.Reason != "" {
		detail += ": " + b.Reason
	}
	return Fail(KindForbidden, CodeBanned, detail).With("retryAfterMs", ms)
}
