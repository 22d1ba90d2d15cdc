package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
)

// asymmetric lists the algorithms that are accepted with a JWKS. HMAC is not among
// them, because anyone can read a public key and could then sign with it.
var asymmetric = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// The freshness of the keys. A key that the provider removed is refused within freshFor.
// A token with an unknown key id causes a fetch, but at most one per eagerFor, so that
// invented key ids cannot flood the provider. When no fetch succeeds, the last keys stay
// valid for keepFor.
const (
	freshFor     = 15 * time.Minute
	retryFor     = 10 * time.Second
	eagerFor     = 10 * time.Second
	fetchTimeout = 10 * time.Second
	keepFor      = 6 * time.Hour
	maxKeySet    = 1 << 20 // bytes
)

// keySet holds the keys of a JWKS. A fetched set replaces the one before, so a removed
// key is refused from then on, also when other members cannot be used. When no set can
// be fetched, the last keys stay valid for keepFor. The bound is there because an
// attacker who cuts the server off from the provider would otherwise keep a revoked
// key valid.
type keySet struct {
	url    string
	client *http.Client
	log    *slog.Logger
	keys   atomic.Pointer[fetchedKeys] // nil before the first fetch

	fetching sync.Mutex // one fetch at a time; guards the rest
	tried    time.Time
	warned   string // the last warning about unusable members, so that it is logged once and not at each fetch
}

// fetchedKeys are the keys of one fetch.
type fetchedKeys struct {
	keys []verificationKey
	at   time.Time
}

func newKeySet(address string, log *slog.Logger) *keySet {
	k := &keySet{url: address, log: log}
	k.client = &http.Client{
		Timeout: fetchTimeout,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("too many redirects")
			}
			return checkKeySetURL(r.URL.String())
		},
	}
	return k
}

// checkKeySetURL refuses URLs through which an attacker on the network could supply
// keys of his own.
func checkKeySetURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "":
		return errors.New("auth: the JWKS URL is not a URL (PLUGCAST_JWKS_URL)")
	case u.User != nil:
		return errors.New("auth: the JWKS URL must not contain credentials (PLUGCAST_JWKS_URL)")
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
			k.log.Error("cannot fetch the keys for tokens", "error", err)
			next = retryFor
		}
		if backoff.Sleep(ctx, next) != nil {
			return nil
		}
	}
}

// fetch replaces the keys, unless another call tried within the last notWithin.
func (k *keySet) fetch(ctx context.Context, notWithin time.Duration) error {
	k.fetching.Lock()
	defer k.fetching.Unlock()
	if !k.tried.IsZero() && time.Since(k.tried) < notWithin {
		return nil
	}
	defer func() { k.tried = time.Now() }() // at the end, so that a slow failure is not repeated at once
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	text, err := k.get(ctx)
	if err != nil {
		return fmt.Errorf("auth: fetch key set: %w", err)
	}
	keys, skipped, err := parseKeySet(text)
	if err != nil {
		return fmt.Errorf("auth: fetch key set: %w", err)
	}
	k.keys.Store(&fetchedKeys{keys, time.Now()})
	if warning := strings.Join(skipped, "; "); warning != k.warned {
		k.warned = warning
		if len(skipped) > 0 {
			k.log.Warn("skipped unusable members of the key set for tokens", "members", skipped[:min(len(skipped), 8)],
				"skipped", len(skipped), "used", len(keys))
		}
	}
	return nil
}

func (k *keySet) get(ctx context.Context) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := k.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider answers %d", answer.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxKeySet+1))
	if err == nil && len(text) > maxKeySet {
		err = fmt.Errorf("the key set is larger than %d bytes", maxKeySet)
	}
	return bytes.TrimPrefix(text, []byte("\ufeff")), err
}

// keyfunc returns the function that finds the keys which may have signed a token.
func (k *keySet) keyfunc(ctx context.Context) jwt.Keyfunc {
	return func(token *jwt.Token) (any, error) {
		set, err := k.candidates(token)
		if !errors.Is(err, errNoSuchKey) {
			return set, err
		}
		// This caller may give up, but the callers that wait for the fetch still need the keys.
		if err := k.fetch(context.WithoutCancel(ctx), eagerFor); err != nil {
			k.log.Error("cannot fetch the keys for tokens", "error", err)
		}
		if set, err = k.candidates(token); errors.Is(err, errNoSuchKey) && k.current() == nil {
			return nil, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable,
				"the keys for tokens cannot be fetched now; try again in a moment").WithCause(err)
		}
		return set, err
	}
}

// errNoSuchKey says that no key has the token's key id or, for a token without one,
// that there is no key at all.
var errNoSuchKey = errors.New("auth: no such key")

// candidates returns the keys with the token's key id and algorithm.
func (k *keySet) candidates(token *jwt.Token) (jwt.VerificationKeySet, error) {
	var set jwt.VerificationKeySet
	id, named := token.Header["kid"].(string)
	if _, there := token.Header["kid"]; there && !named {
		return set, errors.New("auth: the key id is not a string")
	}
	found := false
	for _, key := range k.current() {
		if named && key.id != id {
			continue
		}
		found = true
		if (key.algorithm == "" || key.algorithm == token.Method.Alg()) && fits(key.public, token.Method.Alg()) {
			set.Keys = append(set.Keys, key.public)
		}
	}
	if !found {
		return set, errNoSuchKey
	}
	return set, nil // the parser refuses a token for which the set is empty
}

// current returns the keys that are valid now. It is nil when no fetch succeeded yet, or
// none within keepFor.
func (k *keySet) current() []verificationKey {
	last := k.keys.Load()
	if last == nil || time.Since(last.at) > keepFor {
		return nil
	}
	return last.keys
}
