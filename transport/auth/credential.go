package auth

import (
	"net/http"
	"strings"
)

// SubprotocolPrefix precedes a token among the WebSocket subprotocols of a request. The
// list of subprotocols is the only header that a browser's WebSocket can set.
const SubprotocolPrefix = "bearer."

// credential is the credential of a request: a token, a ticket, or neither.
type credential struct {
	token  string
	ticket string
}

// forbiddenParameters are the URL parameters in which other platforms accept tokens.
// Logs and browser histories keep URLs, so a token there is refused even when it is
// valid, to tell its owner.
var forbiddenParameters = []string{"token", "access_token"}

// credentialOf returns the credential of a request. A token in a header has precedence;
// a ticket beside it stays unused.
func credentialOf(r *http.Request) (credential, error) {
	query := r.URL.Query()
	for _, name := range forbiddenParameters {
		if query.Has(name) {
			return credential{}, refuse(CodeTokenInvalid,
				"a token in a URL is refused because logs keep URLs: use Authorization: Bearer, "+
					"the WebSocket subprotocol bearer.<token>, or a ticket from POST /api/v1/tickets in ?ticket=")
		}
	}
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		token = strings.TrimSpace(token)
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			return credential{}, refuse(CodeTokenInvalid, "the Authorization header must be: Bearer, a space and the token")
		}
		return credential{token: token}, nil
	}
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offer := range strings.SplitSeq(line, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(offer), SubprotocolPrefix); ok && token != "" {
				return credential{token: token}, nil
			}
		}
	}
	return credential{ticket: query.Get("ticket")}, nil
}
