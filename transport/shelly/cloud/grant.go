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
	at      server    // where the account lives, as the token says
	expires time.Time // zero when the token does not say
	renewAt time.Time // zero when there is no telling
}

func (g grant) alive(now time.Time) bool {
	return g.token != "" && (g.expires.IsZero() || now.Before(g.expires))
}

// refusal says that the credential is no good until somebody replaces it.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

// saveTimeout bounds the keeping of what was renewed, which goes on when the actor
// is stopped meanwhile: the old token may be void already.
const saveTimeout = 5 * time.Second

// grantOf reads the access token that the secret holds.
func (a *actor) grantOf(s Secret, now time.Time) (grant, error) {
	token, err := readClaims(s.AccessToken)
	if err != nil {
		return grant{}, err
	}
	address := token.userAPIURL
	if code, err := readClaims(s.AuthCode); err == nil {
		address = cmp.Or(address, code.userAPIURL)
	}
	at, err := serverAt(address, a.cfg.AllowHost)
	if err != nil {
		return grant{}, err
	}
	g := grant{token: s.AccessToken, user: token.userID, at: at, expires: token.expires}
	if !g.expires.IsZero() {
		issued := token.issued
		if issued.IsZero() || issued.After(now) {
			issued = now
		}
		g.renewAt = g.expires.Add(-min(a.cfg.RenewAhead, max(0, g.expires.Sub(issued)/4)))
	}
	return g, nil
}

// authorise returns the token to use now, after renewing it when its end is near or
// it was refused. It fails with a [refusal] when nothing can renew it.
func (a *actor) authorise(ctx context.Context) (grant, error) {
	now := time.Now()
	g, err := a.grantOf(a.secret, now)
	alive := err == nil && !a.rejected && g.alive(now)
	if alive && (g.renewAt.IsZero() || now.Before(g.renewAt)) {
		return g, nil
	}
	renewed, fresh, err := a.renew(ctx, a.secret, alive)
	switch {
	case err == nil:
		a.secret, a.rejected = renewed, false
		return fresh, nil
	case alive:
		a.logger.Warn("the token cannot be renewed yet", "error", a.secret.scrub(err.Error()))
		g.renewAt = now.Add(a.cfg.BackoffMax)
		return g, nil
	}
	return grant{}, err
}

// renew gets a new access token. Neither way is documented: the code is exchanged
// again (US), and a refresh token, where there is one, is good as long as the access
// token lives (measured). It reads nothing of the actor's that changes.
func (a *actor) renew(ctx context.Context, old Secret, alive bool) (Secret, grant, error) {
	servers, user, err := a.serversOf(old)
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
	account, done := a.account(user)
	defer done()
	err = &refusal{"the token has ended, and there is nothing to renew it with"}
	for _, at := range servers {
		for _, form := range forms {
			got, failed := account.exchange(ctx, at, form)
			if failed == nil {
				return a.accept(ctx, old, got)
			}
			var answer *httpError
			if !errors.As(failed, &answer) || !answer.refuses() {
				return old, grant{}, failed // the next would hardly fare better
			}
			err = &refusal{"the Shelly Cloud does not renew the token"}
		}
	}
	return old, grant{}, err
}

// accept checks and keeps what was renewed.
func (a *actor) accept(ctx context.Context, old Secret, got tokens) (Secret, grant, error) {
	renewed := Secret{
		AuthCode: old.AuthCode, AccessToken: got.AccessToken,
		RefreshToken: cmp.Or(got.RefreshToken, old.RefreshToken), ClientID: old.ClientID,
	}
	now := time.Now()
	g, err := a.grantOf(renewed, now)
	switch {
	case errors.Is(err, errForeignHost):
		return old, grant{}, &refusal{err.Error()}
	case err != nil:
		return old, grant{}, err
	case !g.alive(now):
		return old, grant{}, errors.New("the Shelly Cloud gave a token that has ended: is this machine's clock right?")
	case !g.renewAt.IsZero() && !now.Before(g.renewAt):
		g.renewAt = now.Add(g.expires.Sub(now) / 2) // by a clock that is far ahead
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if err := a.parts.Store.SaveSecret(ctx, a.conn, renewed); err != nil {
		a.logger.Error("the renewed token is not kept", "error", renewed.scrub(err.Error()))
	}
	return renewed, g, nil
}

// serversOf lists where a credential can be renewed: where the account was last, and
// where it was when the code was given.
func (a *actor) serversOf(s Secret) (servers []server, user string, err error) {
	err = &refusal{errToken.Error()}
	for _, token := range []string{s.AccessToken, s.AuthCode} {
		c, unreadable := readClaims(token)
		if unreadable != nil || c.userAPIURL == "" {
			continue
		}
		user = cmp.Or(user, c.userID)
		at, foreign := serverAt(c.userAPIURL, a.cfg.AllowHost)
		if foreign != nil {
			err = &refusal{foreign.Error()}
			continue
		}
		if !slices.Contains(servers, at) {
			servers = append(servers, at)
		}
	}
	if len(servers) > 0 {
		err = nil
	}
	return servers, user, err
}

// account is the HTTP side for the user, behind the gate that all credentials of
// the user's account share. done gives it back.
func (a *actor) account(user string) (acc *account, done func()) {
	g, done := a.gates.of(cmp.Or(user, "connection "+string(a.conn.System)+"/"+string(a.conn.ID)))
	return &account{http: a.http, gate: g, max: a.cfg.MaxAllStatus}, done
}
