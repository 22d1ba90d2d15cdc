package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// account is the HTTP API of the Shelly Cloud for one account. Its errors may have
// secrets in them: scrub them before logging.
type account struct {
	http     *http.Client
	throttle *throttle
	max      int64 // bytes of an answer
}

// newHTTPClient returns the client that all accounts share. It follows no redirect,
// because the token would go along.
func newHTTPClient(timeout time.Duration) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 4
	return &http.Client{
		Transport: transport,
		Timeout:   timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// exchange exchanges a code or a refresh token for an access token. [rejects] tells
// whether the cloud no longer takes the code or the refresh token.
func (a *account) exchange(ctx context.Context, at server, form url.Values) (tokens, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at.api+"/oauth/auth", strings.NewReader(form.Encode()))
	if err != nil {
		return tokens{}, fmt.Errorf("cloud: exchange: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, err := a.do(request)
	if err != nil {
		var answer *httpError
		if errors.As(err, &answer) && answer.status == http.StatusBadRequest {
			answer.status = http.StatusUnauthorized // OAuth's way to refuse a grant
		}
		return tokens{}, fmt.Errorf("cloud: exchange: %w", err)
	}
	var t tokens
	if json.Unmarshal(body, &t) != nil || t.AccessToken == "" {
		return tokens{}, errors.New("cloud: exchange: the answer has no token")
	}
	return t, nil
}

// allStatus fetches the states of the account's devices, without those that others
// share with it.
func (a *account) allStatus(ctx context.Context, at server, token string) (allStatus, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		at.api+"/device/all_status?show_info=true&no_shared=true", nil)
	if err != nil {
		return allStatus{}, fmt.Errorf("cloud: all_status: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	body, err := a.do(request)
	if err != nil {
		return allStatus{}, fmt.Errorf("cloud: all_status: %w", err)
	}
	return decodeAllStatus(body)
}

func (a *account) do(request *http.Request) ([]byte, error) {
	if err := a.throttle.wait(request.Context()); err != nil {
		return nil, err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, a.max+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(body)) > a.max:
		return nil, fmt.Errorf("the answer has more than %d bytes", a.max)
	case response.StatusCode == http.StatusTooManyRequests:
		after := retryAfter(response.Header)
		a.throttle.limited(after)
		return nil, &httpError{status: response.StatusCode, retryAfter: after}
	}
	a.throttle.answered()
	if failure := readFailure(response.StatusCode, body); failure != nil {
		return nil, failure
	}
	if response.StatusCode >= 300 {
		return nil, &httpError{status: response.StatusCode}
	}
	return body, nil
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, 3600)) * time.Second
}
