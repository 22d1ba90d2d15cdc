package client

import "github.com/plugcast/plugcast/domain"

// The codes of the errors of sessions, on every face. Other codes come from the domain,
// from the authenticator, and from package limit ([limit.CodeRateLimited]).
const (
	CodeNotJoined    domain.Code = "not-joined" // the client is not in the room that it wants to leave
	CodeTooManyRooms domain.Code = "too-many-rooms"
	CodeTokenExpired domain.Code = "token-expired" // the session ends
	CodeNoJoin       domain.Code = "no-join"       // the client did not join in time; the session ends
)

// Problem returns an error in the form that clients receive: its parameters, code and detail.
func Problem(err *domain.Error) map[string]any {
	data := make(map[string]any, len(err.Params)+2)
	for key, value := range err.Params {
		data[key] = value
	}
	data["code"], data["detail"] = err.Code, err.Detail
	return data
}

// Public returns the error that the client receives. It logs an internal error and
// returns a temporary one instead.
func (s *Server) Public(err error, doing string) *domain.Error {
	e := domain.AsError(err)
	if e.Kind == domain.KindInternal {
		s.parts.Logger.Warn(s.config.Face+": cannot "+doing, "error", err)
		return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "the server cannot do this now; try again in a moment")
	}
	return e
}
