package rest

import (
	"net/http"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// entityTag returns the ETag of a state that the events at the positions made.
func entityTag(positions ...domain.Position) string {
	parts := make([]string, len(positions))
	for i, p := range positions {
		parts[i] = p.String()
	}
	return `"` + strings.Join(parts, "+") + `"`
}

// ConditionalRead is part of the input of reads that have an ETag.
type ConditionalRead struct {
	IfNoneMatch string `header:"If-None-Match" doc:"Answer 304 if the ETag is one of these"`
}

func (in *ConditionalRead) matches(tag string) bool {
	for candidate := range strings.SplitSeq(in.IfNoneMatch, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == "*" {
			return true
		}
	}
	return false
}

// conditionalOutput is the answer to a read of one object.
type conditionalOutput[T any] struct {
	Status int
	ETag   string `header:"ETag" doc:"The object's quoted position, for If-Match. A device's ETag also covers its assignment and connection"`
	Body   *T
}

// conditional answers with the body, or with 304 if the caller has it already.
func conditional[T any](in *ConditionalRead, tag string, body *T) *conditionalOutput[T] {
	if in.matches(tag) {
		return &conditionalOutput[T]{Status: http.StatusNotModified, ETag: tag}
	}
	return &conditionalOutput[T]{Status: http.StatusOK, ETag: tag, Body: body}
}

// ConditionalWrite is part of the input of commands on an object that has a position.
type ConditionalWrite struct {
	IfMatch string `header:"If-Match" doc:"Fail with 412 unless this ETag is the present one" example:"\"1795461046705-0\""`
}

// position parses the header's one ETag. It returns nil if there is none. It ignores
// the mark of a weak ETag, because proxies add that when they compress.
func (in *ConditionalWrite) position() (*domain.Position, error) {
	if in.IfMatch == "" {
		return nil, nil
	}
	tag := strings.TrimPrefix(strings.TrimSpace(in.IfMatch), "W/")
	p, err := domain.ParsePosition(strings.Trim(tag, `"`))
	if err != nil {
		return nil, invalidRequest(`If-Match takes one ETag, a quoted position such as "1795461046705-0"`)
	}
	return &p, nil
}
