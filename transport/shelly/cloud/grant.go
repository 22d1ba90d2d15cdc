package cloud

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"time"
)

// grant is an access token in use.
type grant struct {
	token   string
	user    string    // the account
	at      server    // of the account, as the token says
	expires time.Time // zero when the token does not say
	renewAt time.Time // zero when unknown
}

func (g grant) alive(now time.Time) bool {
	return g.token != "" && (g.expires.IsZero() || now.Before(g.expires))
}

// refusedError says that the credential cannot be used until somebody replaces it.
type refusedError struct{ reason string }

func (r *refusedError) Error() string { return r.reason }

// saveTimeout bounds the saving of renewed tokens. It goes on when the session is
// stopped, because the old token may be void already.
const saveTimeout = 5 * time.Second

// grantOf reads the access token of a secret.
func (s *session) grantOf(secret Secret, now time.Time) (grant, error) {
	token, err := readClaims(secret.AccessToken)
	if err != nil {
		return grant{}, err
	}
	address := token.userAPIURL
	if code, err := readClaims(secret.AuthCode); err == nil {
		address = cmp.Or(address, code.userAPIURL)
	}
	at, err := serverAt(address, s.cfg.AllowHost)
	if err != nil {
		return grant{}, err
	}
	g := grant{token: secret.AccessToken, user: token.userID, at: at, expires: token.expires}
	if !g.expires.IsZero() {
		issued := token.issued
		if issued.IsZero() || issued.After(now) {
			issued = now
		}
		g.renewAt = g.expires.Add(-min(s.cfg.RenewAhead, max(0, g.expires.Sub(issued)/4)))
	}
	return g, nil
}

// authorise returns a token to use. It renews one that was rejected or that expires
// soon. It fails with a [refusedError] when the credential cannot renew the token.
func (s *session) authorise(ctx context.Context) (grant, error) {
	now := time.Now()
	g, err := s.grantOf(s.secret, now)
	alive := err == nil && !s.rejected && g.alive(now)
	if alive && (g.renewAt.IsZero() || now.Before(g.renewAt)) {
		return g, nil
	}
	renewed, fresh, err := s.renew(ctx, s.secret, alive)
	switch {
	case err == nil:
		s.secret, s.rejected = renewed, false
		return fresh, nil
	case alive:
		s.logger.Warn("cannot renew the token yet", "error", s.secret.scrub(err.Error()))
		g.renewAt = now.Add(s.cfg.BackoffMax)
		return g, nil
	}
	return grant{}, err
}

// renew gets a new access token. Neither way is documented: the code can be exchanged
// again (US), and a refresh token, where there is one, is valid as long as the access
// token (measured). renew is safe beside the session's goroutine.
func (s *session) renew(ctx context.Context, old Secret, alive bool) (Secret, grant, error) {
	servers, user, err := s.serversOf(old)
	if err != nil {
		return old, grant{}, err
	}
	var forms []url.Values
	if old.AuthCode != "" {
		forms = append(forms, url.Values{"client_id": {old.clientID()}, "grant_type": {"code"}, "code": {old.AuthCode}})
	}
	if old.RefreshToken != "" && alive {
		forms = append(forms, url.Values{
			"client_id": {old.clientID()}, "grant_type": {"refresh_token"}, "refresh_token": {old.RefreshToken},
		})
	}
	api, release := s.accountOf(user)
	defer release()
	err = &refusedError{"the token has expired, and nothing can renew it"}
	for _, at := range servers {
		for _, form := range forms {
			got, failed := api.exchange(ctx, at, form)
			if failed == nil {
				return s.accept(ctx, old, got)
			}
			if !rejects(failed) {
				return old, grant{}, failed // the next would hardly fare better
			}
			err = &refusedError{"the Shelly Cloud does not renew the token"}
		}
	}
	return old, grant{}, err
}

// accept checks and saves renewed tokens.
func (s *session) accept(ctx context.Context, old Secret, got tokens) (Secret, grant, error) {
	renewed := Secret{
		AuthCode: old.AuthCode, AccessToken: got.AccessToken,
		RefreshToken: cmp.Or(got.RefreshToken, old.RefreshToken), ClientID: old.ClientID,
	}
	now := time.Now()
	g, err := s.grantOf(renewed, now)
	switch {
	case errors.Is(err, errForeignHost):
		return old, grant{}, &refusedError{err.Error()}
	case err != nil:
		return old, grant{}, err
	case !g.alive(now):
		return old, grant{}, errors.New("the Shelly Cloud gave an expired token: is this machine's clock right?")
	case !g.renewAt.IsZero() && !now.Before(g.renewAt):
		g.renewAt = now.Add(g.expires.Sub(now) / 2) // this machine's clock is far ahead
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if err := s.parts.Secrets.SaveSecret(ctx, s.conn, renewed); err != nil {
		s.logger.Error("cannot save the renewed token", "error", renewed.scrub(err.Error()))
	}
	return renewed, g, nil
}

// serversOf returns the servers that may renew a credential: the account's last one,
// and the one that issued the code.
func (s *session) serversOf(secret Secret) (servers []server, user string, err error) {
	err = &refusedError{errToken.Error()}
	for _, token := range []string{secret.AccessToken, secret.AuthCode} {
		c, unreadable := readClaims(token)
		if unreadable != nil || c.userAPIURL == "" {
			continue
		}
		user = cmp.Or(user, c.userID)
		at, foreign := serverAt(c.userAPIURL, s.cfg.AllowHost)
		if foreign != nil {
			err = &refusedError{foreign.Error()}
		} else if !slices.Contains(servers, at) {
			servers = append(servers, at)
		}
	}
	if len(servers) > 0 {
		err = nil
	}
	return servers, user, err
}

// accountOf returns the user's account behind the throttle that all credentials of
// the account share, and the function that releases it.
func (s *session) accountOf(user string) (api *account, release func()) {
	t, release := s.throttles.of(cmp.Or(user, "connection "+string(s.conn.System)+"/"+string(s.conn.ID)))
	return &account{http: s.http, throttle: t, max: s.cfg.MaxAllStatus}, release
}
