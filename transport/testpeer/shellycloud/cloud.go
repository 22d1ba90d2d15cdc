// Package shellycloud plays the Shelly Cloud over the real protocols and real sockets,
// with the oddities that were measured, and with faults that a test asks for.
package shellycloud

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Config says how a [Cloud] behaves. Zero fields take their defaults.
type Config struct {
	TokenLife    time.Duration // default 12 h (measured)
	RequestEvery time.Duration // one HTTP request per account; default 1 s; below 0 is no limit
	// RefuseWith is how a socket is refused whose token is not taken: a close code,
	// such as 4401, after the handshake, or an HTTP status, such as 401, instead of
	// it. Default 4401.
	RefuseWith int
	// AcceptExpired lets a socket in whose token has ended, and closes it so much
	// later (measured); 0 refuses it.
	AcceptExpired time.Duration
}

// Cloud plays the Shelly Cloud: the exchange of codes, all_status and the real-time
// socket. It is an http.Handler that may listen in several places at once. All its
// methods may be called from any goroutine.
type Cloud struct {
	cfg      Config
	upgrader websocket.Upgrader

	mu       sync.Mutex
	accounts map[string]*Account // by user
	tokens   map[string]*token   // by access token
	timers   map[*time.Timer]struct{}
	outage   bool
	closed   bool
}

type token struct {
	account *Account
	ends    time.Time
	url     string // of the server that it is for
}

// New makes a cloud without accounts.
func New(cfg Config) *Cloud {
	if cfg.TokenLife == 0 {
		cfg.TokenLife = 12 * time.Hour
	}
	if cfg.RequestEvery == 0 {
		cfg.RequestEvery = time.Second
	}
	if cfg.RefuseWith == 0 {
		cfg.RefuseWith = 4401
	}
	return &Cloud{cfg: cfg, accounts: map[string]*Account{}, tokens: map[string]*token{}, timers: map[*time.Timer]struct{}{}}
}

// AddAccount adds a user. url is where the user's server is, as tokens say it: such
// as https://shelly-103-eu.shelly.cloud, or where this handler listens.
func (c *Cloud) AddAccount(user, url string) *Account {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &Account{cloud: c, user: user, url: url, devices: map[string]*Device{}, sockets: map[*socket]struct{}{}}
	a.code = a.signed(map[string]any{"sub": "shelly-diy", "user_id": user, "user_api_url": url})
	c.accounts[user] = a
	return a
}

// Outage begins or ends an outage of the whole cloud: every request is answered with
// 503, and all sockets break off.
func (c *Cloud) Outage(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outage = on
	if on {
		for _, a := range c.accounts {
			a.breakOff()
		}
	}
}

// Close breaks all sockets off and refuses everything from then on.
func (c *Cloud) Close() {
	c.Outage(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for timer := range c.timers {
		timer.Stop()
	}
}

// ServeHTTP implements http.Handler.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	outage := c.outage
	c.mu.Unlock()
	if outage {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	switch r.URL.Path {
	case "/oauth/auth":
		c.serveExchange(w, r)
	case "/device/all_status":
		c.serveAllStatus(w, r)
	case "/shelly/wss/hk_sock":
		c.serveSocket(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (c *Cloud) serveExchange(w http.ResponseWriter, r *http.Request) {
	form := r.PostFormValue
	c.mu.Lock()
	defer c.mu.Unlock()
	var a *Account
	switch form("grant_type") {
	case "code":
		for _, of := range c.accounts {
			if of.code == form("code") {
				a = of
			}
		}
	case "refresh_token": // good only while the access token lives (measured)
		for _, of := range c.accounts {
			if of.refresh != "" && of.refresh == form("refresh_token") && of.alive(time.Now()) {
				a = of
			}
		}
	}
	if a != nil {
		a.counts.Exchanges++
	}
	switch {
	case a == nil || a.revoked || form("client_id") == "" || a.onceOnly && a.counts.Exchanges > 1 && form("grant_type") == "code":
		respond(w, http.StatusUnauthorized, map[string]any{
			"isok": false, "errors": map[string]string{"invalid_token": "Your token is invalid or expired!"},
		})
		return
	case a.limited():
		respond(w, http.StatusTooManyRequests, map[string]any{"isok": false, "errors": []string{"max_req"}})
		return
	}
	now := time.Now()
	ends := now.Add(c.cfg.TokenLife)
	a.newest = a.signed(map[string]any{
		"sub": "pwd", "iat": float64(now.UnixMilli()) / 1000, "exp": float64(ends.UnixMilli()) / 1000,
		"user_id": a.user, "user_api_url": a.url, "from": "shelly-diy", "sn": "1", "n": a.counts.Exchanges,
	})
	c.tokens[a.newest] = &token{account: a, ends: ends, url: a.url}
	// expires_in is as wrong as in the documentation's example.
	body := map[string]any{"access_token": a.newest, "expires_in": 3600}
	if a.refresh != "" {
		body["refresh_token"] = a.refresh
	}
	respond(w, http.StatusOK, body)
}

func (c *Cloud) serveAllStatus(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	c.mu.Lock()
	t := c.tokens[token]
	if t == nil || t.account.revoked || !time.Now().Before(t.ends) || !tokenIsFor(t, r) {
		c.mu.Unlock()
		respond(w, http.StatusUnauthorized, map[string]any{
			"isok": false, "errors": map[string]string{"invalid_token": "Your token is invalid or expired!"},
		})
		return
	}
	a := t.account
	a.counts.AllStatus++
	if a.limited() {
		a.counts.Limited++
		c.mu.Unlock()
		respond(w, http.StatusTooManyRequests, map[string]any{"isok": false, "errors": []string{"max_req"}})
		return
	}
	states := map[string]any{}
	for id, d := range a.devices {
		if !d.unlisted {
			states["key-"+id] = d.listed() // outer keys are not to be relied on
		}
	}
	raw, _ := json.Marshal(map[string]any{"isok": true, "data": map[string]any{"devices_status": states}})
	if a.nextBody != nil {
		raw, a.nextBody = a.nextBody, nil
	}
	held := a.held
	c.mu.Unlock()
	if held != nil {
		select {
		case <-held: // and by now the answer is old
		case <-r.Context().Done():
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw)
}

// tokenIsFor reports whether the request came to the server that the token is for.
func tokenIsFor(t *token, r *http.Request) bool {
	_, host, _ := strings.Cut(t.url, "://")
	return t.url == t.account.url && (host == r.Host || !strings.Contains(host, ":"))
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// signed makes a token that looks like one of the vendor's. Nobody can check it.
func (a *Account) signed(claims map[string]any) string {
	part := func(v any) string {
		raw, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	var signature [24]byte
	_, _ = rand.Read(signature[:]) // never fails
	return fmt.Sprintf("%s.%s.%s", part(map[string]string{"alg": "HS256", "typ": "JWT"}), part(claims),
		base64.RawURLEncoding.EncodeToString(signature[:]))
}
