package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
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

// httpError is a failure that the vendor's HTTP API answered with.
type httpError struct {
	status     int
	text       string        // the vendor's words, or ""
	retryAfter time.Duration // as the vendor asks, or 0
}

func (e *httpError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("the Shelly Cloud answered %d", e.status)
	}
	return fmt.Sprintf("the Shelly Cloud answered %d: %s", e.status, e.text)
}

// refuses reports whether the answer is about the given token or code, so that a
// repetition would have the same answer.
func (e *httpError) refuses() bool {
	return e.status == http.StatusUnauthorized || e.status == http.StatusForbidden ||
		strings.Contains(e.text, "invalid_token") || strings.Contains(e.text, "UNAUTHORIZED")
}

// rejects reports whether the cloud rejected the token or the code.
func rejects(err error) bool {
	var answer *httpError
	return errors.As(err, &answer) && answer.refuses()
}

// readFailure finds the error in an answer of any HTTP status: a refusal may come with
// 200 and isok false (measured). nil means that there is none, and nothing
// about the rest of the answer.
func readFailure(status int, body []byte) *httpError {
	var answer struct {
		IsOK   *bool           `json:"isok"`
		Errors json.RawMessage `json:"errors"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	readable := json.Unmarshal(body, &answer) == nil
	if status < 300 && (!readable || (answer.IsOK == nil || *answer.IsOK) && answer.Error == "") {
		return nil
	}
	e := &httpError{status: status}
	if !readable {
		return e
	}
	var list any
	if json.Unmarshal(answer.Errors, &list) == nil {
		e.text = words(list)
	}
	if e.text == "" {
		e.text = short(answer.Error)
		var data struct{ Messages []any } // the second version's shape
		if json.Unmarshal(answer.Data, &data) == nil && len(data.Messages) > 0 {
			e.text = short(e.text + ": " + words(data.Messages))
		}
	}
	return e
}

// words makes a short text of the vendor's error, which is a text, a list, a map from
// code to text, or an object with a message.
func words(v any) string {
	switch v := v.(type) {
	case string:
		return short(v)
	case float64:
		return fmt.Sprint(v)
	case []any:
		var parts []string
		for _, e := range v[:min(len(v), 8)] {
			parts = append(parts, words(e))
		}
		return short(strings.Join(parts, "; "))
	case map[string]any:
		if message, ok := v["message"].(string); ok {
			if code, ok := v["code"].(float64); ok {
				return short(fmt.Sprintf("%v: %s", code, message))
			}
			return short(message)
		}
		var parts []string
		for key, e := range v {
			if len(parts) < 8 {
				parts = append(parts, strings.TrimSuffix(key+": "+words(e), ": "))
			}
		}
		slices.Sort(parts)
		return short(strings.Join(parts, "; "))
	}
	return ""
}

// short cuts a text of the vendor's to a length for a log line.
func short(s string) string { return domain.TruncateLine(s, maxWords) }
