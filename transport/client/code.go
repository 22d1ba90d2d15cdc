package client

import "github.com/plugcast/plugcast/domain"

// The codes of errors that sessions give, on every face. Others come from the domain,
// from the authenticator and, as [limit.CodeRateLimited], from package limit.
const (
	CodeNotJoined    domain.Code = "not-joined" // to be left, a room has to be joined
	CodeTooManyRooms domain.Code = "too-many-rooms"
	CodeTokenExpired domain.Code = "token-expired" // then the session ends
	CodeNoJoin       domain.Code = "no-join"       // no join in time; then the session ends
)

// Problem is an error as clients are shown it: its facts beside code and detail.
func Problem(err *domain.Error) map[string]any {
	data := make(map[string]any, len(err.Params)+2)
	for key, value := range err.Params {
		data[key] = value
	}
	data["code"], data["detail"] = err.Code, err.Detail
	return data
}

// Public is an error as a client is shown it. An internal one is logged, and shown as
// something to try again.
func (s *Server) Public(err error, doing string) *domain.Error {
	e := domain.AsError(err)
	if e.Kind == domain.KindInternal {
		s.parts.Logger.Warn(s.config.Face+": cannot "+doing, "error", err)
		return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this cannot be done now; try again in a moment")
	}
	return e
}
