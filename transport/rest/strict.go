package rest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"
)

// checkURLText returns a problem if the URL contains text that Postgres cannot store:
// invalid UTF-8, or a NUL. Otherwise it returns nil.
func checkURLText(ctx context.Context, r *http.Request) *Problem {
	refuse := func(where string) *Problem {
		return newProblem(ctx, http.StatusBadRequest, CodeInvalidRequest, where+" must be UTF-8 without NUL")
	}
	if !isStorable(r.URL.Path) {
		return refuse("the path")
	}
	for name, values := range r.URL.Query() {
		if !isStorable(name) {
			return refuse("the name of a query parameter")
		}
		for _, value := range values {
			if !isStorable(value) {
				return refuse(fmt.Sprintf("query.%.64s", name))
			}
		}
	}
	return nil
}

func isStorable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// checkContentEncoding returns a problem if the body is compressed, because the server
// decompresses none. Otherwise it returns nil.
func checkContentEncoding(ctx context.Context, r *http.Request) *Problem {
	if r.ContentLength == 0 {
		return nil
	}
	for coding := range strings.SplitSeq(strings.Join(r.Header.Values("Content-Encoding"), ","), ",") {
		coding = strings.TrimSpace(coding)
		if coding == "" || strings.EqualFold(coding, "identity") {
			continue
		}
		p := newProblem(ctx, http.StatusUnsupportedMediaType, CodeUnsupportedMediaType,
			fmt.Sprintf("the server does not support Content-Encoding %.32q; send the body without one", coding))
		p.header.Set("Accept-Encoding", "identity")
		return p
	}
	return nil
}
