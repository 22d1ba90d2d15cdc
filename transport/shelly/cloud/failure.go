package cloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
)

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

// readFailure finds the error in an answer, whatever its HTTP status: a refusal may
// come with 200 and isok false (measured). nil means that there is none, and nothing
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
func short(s string) string { return domain.CutLine(s, maxWords) }
