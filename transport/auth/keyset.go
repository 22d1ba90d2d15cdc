package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"github.com/plugcast/plugcast/domain"
)

// asymmetric lists the algorithms that are accepted with a JWKS. HMAC is not
// among them: whoever knows a public key could sign with it.
var asymmetric = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// How the keys are kept fresh. A key that was taken out of the set is refused
// within freshFor; a new key is looked for when a token names it, but not more
// often than eagerFor, so that made-up key ids cause no storm.
const (
	freshFor     = 15 * time.Minute
	retryFor     = 10 * time.Second
	eagerFor     = 10 * time.Second
	fetchTimeout = 10 * time.Second
	maxKeySet    = 1 << 20 // bytes
)

// keySet holds the keys of a JWKS. jwkset can refresh by itself, but from a
// goroutine that nobody can wait for, and it makes requests with unknown key ids
// wait for a minute; so it only fetches and parses here.
type keySet struct {
	url     string
	client  *http.Client
	storage jwkset.Storage
	lookup  keyfunc.Keyfunc
	log     *slog.Logger

	fetching sync.Mutex // one fetch at a time; guards the rest
	tried    time.Time
	fetched  bool
}

func newKeySet(address string, log *slog.Logger) (*keySet, error) {
	k := &keySet{url: address, storage: jwkset.NewMemoryStorage(), log: log}
	k.client = &http.Client{
		Timeout:   fetchTimeout,
		Transport: boundedBody{http.DefaultTransport},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("too many redirects")
			}
			return checkKeySetURL(r.URL.String())
		},
	}
	var err error
	if k.lookup, err = keyfunc.New(keyfunc.Options{Storage: k.storage}); err != nil {
		return nil, fmt.Errorf("auth: key set: %w", err)
	}
	return k, nil
}

// checkKeySetURL refuses what would let somebody on the way put in keys of
// their own.
func checkKeySetURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "":
		return errors.New("auth: the JWKS URL is not a URL (PLUGCAST_JWKS_URL)")
	case u.User != nil:
		return errors.New("auth: the JWKS URL must not hold credentials (PLUGCAST_JWKS_URL)")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	default:
		return errors.New("auth: the JWKS URL must be https, except on a loopback address (PLUGCAST_JWKS_URL)")
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (k *keySet) run(ctx context.Context) error {
	for {
		next := freshFor
		if err := k.fetch(ctx, 0); err != nil && ctx.Err() == nil {
			k.log.Error("keys for tokens cannot be fetched", "error", err)
			next = retryFor
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

// fetch replaces the keys, unless somebody tried within the last notWithin.
func (k *keySet) fetch(ctx context.Context, notWithin time.Duration) error {
	k.fetching.Lock()
	defer k.fetching.Unlock()
	if !k.tried.IsZero() && time.Since(k.tried) < notWithin {
		return nil
	}
	defer func() { k.tried = time.Now() }() // after a slow failure nobody tries at once again
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	_, err := jwkset.NewStorageFromHTTP(k.url, jwkset.HTTPClientStorageOptions{
		Client: k.client, Ctx: ctx, HTTPTimeout: fetchTimeout, Storage: k.storage,
	})
	if err != nil {
		return fmt.Errorf("auth: fetch key set: %w", err)
	}
	k.fetched = true
	return nil
}

func (k *keySet) keyfunc(ctx context.Context) jwt.Keyfunc {
	find := k.lookup.KeyfuncCtx(ctx)
	return func(token *jwt.Token) (any, error) {
		key, err := find(token)
		if !isUnknown(key, err) {
			return key, err
		}
		// The caller may go away; whoever waits behind it still wants the keys.
		if err := k.fetch(context.WithoutCancel(ctx), eagerFor); err != nil {
			k.log.Error("keys for tokens cannot be fetched", "error", err)
		}
		if key, err = find(token); isUnknown(key, err) && !k.ready() {
			return nil, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable,
				"the keys that tokens are signed with cannot be fetched now; repeat in a moment").Because(err)
		}
		return key, err
	}
}

// isUnknown reports whether the set holds no key for the token: none of its key
// id or, for a token without one, none at all.
func isUnknown(key any, err error) bool {
	all, isSet := key.(jwt.VerificationKeySet)
	return errors.Is(err, jwkset.ErrKeyNotFound) || isSet && len(all.Keys) == 0
}

func (k *keySet) ready() bool {
	k.fetching.Lock()
	defer k.fetching.Unlock()
	return k.fetched
}

// boundedBody cuts answers off, so that a bad server cannot fill the memory.
type boundedBody struct{ next http.RoundTripper }

func (t boundedBody) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxKeySet), resp.Body}
	return resp, nil
}
