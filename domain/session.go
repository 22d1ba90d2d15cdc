package domain

// SessionRef identifies a saved session, from which a Socket.IO client resumes.
type SessionRef struct {
	System  SystemID // its quota pays for the session; see [Actor.QuotaSystem]
	Subject string   // only a token of this subject opens the session
	PID     string   // random secret that the client presents when it returns
}
