package domain

// SessionRef names what a client left behind to resume from: the client's own key
// to it, whose it is, and the system on whose account it is kept.
type SessionRef struct {
	System  SystemID
	Subject string // only this subject's token opens it
	PID     string // random; the client shows it when it comes back
}

// Account is the system that something of the actor's is counted for: the one that
// it names or, when it names none or none of the actor's, the first of the actor's
// token. For a token of every system that is [PlatformSystem]. So nobody can use up
// what belongs to a neighbour.
func (a Actor) Account(named SystemID) SystemID {
	switch {
	case named != "" && a.Sees(named):
		return named
	case a.AllSystems || len(a.Systems) == 0:
		return PlatformSystem
	default:
		return a.Systems[0]
	}
}
