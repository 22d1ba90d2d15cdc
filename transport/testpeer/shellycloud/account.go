package shellycloud

import (
	"encoding/json"
	"time"
)

// Counts is what happened on an account so far.
type Counts struct {
	Exchanges int // of codes or refresh tokens, refused ones too
	AllStatus int // requests, limited ones too
	Limited   int // of them, with 429
	Dials     int // sockets asked for
	Sockets   int // open now
	Most      int // open at once, ever
	Commands  int
}

// Account is a user of a [Cloud].
type Account struct {
	cloud *Cloud
	user  string

	// Guarded by cloud.mu.
	url      string
	code     string
	refresh  string
	newest   string // the access token given last
	revoked  bool
	onceOnly bool
	devices  map[string]*Device // by hex id
	sockets  map[*socket]struct{}
	counts   Counts
	lastAt   time.Time // of a request that was not limited
	limit    int       // requests to answer with 429
	held     chan struct{}
	nextBody []byte
	fault    Fault
	late     [][]byte
	mute     bool
	deaf     bool
}

// AuthCode is what the login page gives the user: it is exchanged for tokens.
func (a *Account) AuthCode() string {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.code
}

// NewAuthCode voids the code and makes another, as a new login does. A grant that
// was revoked is good again.
func (a *Account) NewAuthCode() string {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	a.code = a.signed(map[string]any{"sub": "shelly-diy", "user_id": a.user, "user_api_url": a.url})
	a.revoked = false
	return a.code
}

// SetRefreshToken makes exchanges give a refresh token.
func (a *Account) SetRefreshToken(token string) { a.set(func() { a.refresh = token }) }

// CodeOnceOnly makes the code good for one exchange.
func (a *Account) CodeOnceOnly() { a.set(func() { a.onceOnly = true }) }

// Revoke takes the grant back: neither code nor tokens are good any more. Sockets
// stay open.
func (a *Account) Revoke() { a.set(func() { a.revoked = true }) }

// ExpireTokens ends all tokens that were given, whatever they say of themselves.
// Sockets stay open.
func (a *Account) ExpireTokens() {
	a.set(func() {
		for _, t := range a.cloud.tokens {
			if t.account == a {
				t.ends = time.Time{}
			}
		}
	})
}

// Move has the account live on another server. The old one refuses the account's
// tokens, gives new ones that name the new server, and breaks its sockets off.
func (a *Account) Move(url string) {
	a.set(func() {
		a.url = url
		a.breakOff()
	})
}

// LimitNext answers the next n requests with 429.
func (a *Account) LimitNext(n int) { a.set(func() { a.limit = n }) }

// AnswerNext answers the next all_status with the body.
func (a *Account) AnswerNext(body string) { a.set(func() { a.nextBody = []byte(body) }) }

// HoldAllStatus keeps answers of all_status back, as they are made, until release.
func (a *Account) HoldAllStatus() (release func()) {
	held := make(chan struct{})
	a.set(func() { a.held = held })
	return func() {
		a.set(func() { a.held = nil })
		close(held)
	}
}

// SetFault says what goes wrong with commands from now on.
func (a *Account) SetFault(f Fault) { a.set(func() { a.fault = f }) }

// SendLate sends the answers that [Late] kept back, on the sockets of now.
func (a *Account) SendLate() {
	a.set(func() {
		for _, frame := range a.late {
			a.broadcast(frame)
		}
		a.late = nil
	})
}

// Mute loses events: what changes is not sent.
func (a *Account) Mute(on bool) { a.set(func() { a.mute = on }) }

// Deaf leaves pings unanswered and takes no command.
func (a *Account) Deaf(on bool) { a.set(func() { a.deaf = on }) }

// CloseSockets closes the account's sockets with a close frame.
func (a *Account) CloseSockets(code int, text string) {
	a.set(func() {
		for s := range a.sockets {
			s.bye(code, text)
		}
	})
}

// BreakSockets ends the account's sockets without a word.
func (a *Account) BreakSockets() { a.set(a.breakOff) }

// Send sends a frame, of whatever kind, on the account's sockets.
func (a *Account) Send(frame string) { a.set(func() { a.broadcast([]byte(frame)) }) }

// Counts says what happened so far.
func (a *Account) Counts() (counts Counts) {
	a.set(func() {
		counts = a.counts
		counts.Sockets = len(a.sockets)
	})
	return counts
}

func (a *Account) set(f func()) {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	f()
}

// The methods below want cloud.mu held.

func (a *Account) alive(now time.Time) bool {
	t := a.cloud.tokens[a.newest]
	return t != nil && now.Before(t.ends)
}

// limited reports whether a request comes too soon after the last. A tenth of the
// time is forgiven: requests that were sent evenly do not arrive so.
func (a *Account) limited() bool {
	if a.limit > 0 {
		a.limit--
		return true
	}
	now := time.Now()
	if every := a.cloud.cfg.RequestEvery; every > 0 && now.Sub(a.lastAt) < every-every/10 {
		return true
	}
	a.lastAt = now
	return false
}

func (a *Account) breakOff() {
	for s := range a.sockets {
		s.cut()
	}
}

func (a *Account) broadcast(frame []byte) {
	for s := range a.sockets {
		s.send(frame)
	}
}

func (a *Account) event(v any) {
	if a.mute {
		return
	}
	raw, _ := json.Marshal(v)
	a.broadcast(raw)
}
