package rest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"
)

// unstorable refuses text in the URL that no database holds: what is not UTF-8,
// or has a NUL. It is nil when all is well.
func unstorable(ctx context.Context, r *http.Request) *Problem {
	refuse := func(where string) *Problem {
		return newProblem(ctx, http.StatusBadRequest, CodeInvalidRequest, where+" must be UTF-8 without NUL")
	}
	if !isText(r.URL.Path) {
		return refuse("the path")
	}
	for name, values := range r.URL.Query() {
		if !isText(name) {
			return refuse("the name of a query parameter")
		}
		for _, value := range values {
			if !isText(value) {
				return refuse(fmt.Sprintf("query.%.64s", name))
			}
		}
	}
	return nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// encoded refuses a body in a coding: none is undone here. It is nil when there
// is none.
func encoded(ctx context.Context, r *http.Request) *Problem {
	if r.ContentLength == 0 {
		return nil
	}
	for coding := range strings.SplitSeq(strings.Join(r.Header.Values("Content-Encoding"), ","), ",") {
		coding = strings.TrimSpace(coding)
		if coding == "" || strings.EqualFold(coding, "identity") {
			continue
		}
		p := newProblem(ctx, http.StatusUnsupportedMediaType, CodeUnsupportedMediaType,
			fmt.Sprintf("a body with Content-Encoding %.32q is not taken; send it as it is", coding))
		p.header.Set("Accept-Encoding", "identity")
		return p
	}
	return nil
}
