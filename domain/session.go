package domain

// SessionRef names what a client left behind to resume from: the client's own key
// to it, whose it is, and the system on whose account it is kept.
type SessionRef struct {
	System  SystemID
	Subject string // only this subject's token opens it
	PID     string // random; the client shows it when it comes back
}

// Account is the system that the actor's requests are counted for when they name
// none: the first of its token or, for a token of every system, [PlatformSystem].
func (a Actor) Account() SystemID {
	if a.AllSystems || len(a.Systems) == 0 {
		return PlatformSystem
	}
	return a.Systems[0]
}
