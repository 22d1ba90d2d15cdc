package rest

import (
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// entityTag is the ETag of what the events at the positions made.
func entityTag(positions ...domain.Position) string {
	parts := make([]string, len(positions))
	for i, p := range positions {
		parts[i] = p.String()
	}
	return `"` + strings.Join(parts, "+") + `"`
}

// Revalidated is part of the input of reads that have an ETag.
type Revalidated struct {
	IfNoneMatch string `header:"If-None-Match" doc:"Answers 304 when the ETag is still one of these"`
}

func (in *Revalidated) matches(tag string) bool {
	for candidate := range strings.SplitSeq(in.IfNoneMatch, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == "*" {
			return true
		}
	}
	return false
}

// Conditional is part of the input of commands on something that has a position.
type Conditional struct {
	IfMatch string `header:"If-Match" doc:"Only if this ETag, a quoted position, is still the present one; otherwise 412" example:"\"1795461046705-0\""`
}

// position reads the one ETag of the header, or nil when there is none. A weak
// mark is passed over: proxies add it when they compress.
func (in *Conditional) position() (*domain.Position, error) {
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
