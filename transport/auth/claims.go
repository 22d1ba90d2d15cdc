package auth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// claims are the contents of a token. SystemID is an older, shorter way to name a
// single system.
type claims struct {
	Systems  []string    `json:"systems,omitempty"`
	SystemID string      `json:"systemId,omitempty"`
	Role     domain.Role `json:"role,omitempty"`
	jwt.RegisteredClaims
}

// everySystem among the systems of a token means all systems.
const everySystem = "*"

// maxSubject bounds a subject, in bytes, because every event that the subject causes
// contains it.
const maxSubject = 128

// payload keeps the claims as text for [parseClaims]. The JWT library would read them
// with encoding/json, which ignores case ("Role" is read as role) and takes the last
// of two equal names.
type payload struct {
	jwt.RegisteredClaims // stays empty: parseClaims reads these as well
	json                 []byte
}

// UnmarshalJSON implements [json.Unmarshaler].
func (p *payload) UnmarshalJSON(b []byte) error {
	p.json = slices.Clone(b)
	return nil
}

// checkHeader refuses a header that two readers may interpret differently, and one that
// requires an extension (crit). The parser checks the algorithm. The parser also reports
// text that is no token at all; checkHeader lets it pass.
func checkHeader(token string) error {
	part, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil
	}
	header, err := strictjson.Members(text)
	if err != nil {
		return refuse(CodeTokenInvalid, "the token's header cannot be read: "+printable(err.Error()))
	}
	if _, critical := header["crit"]; critical {
		return refuse(CodeTokenInvalid, "the token's header has crit, but this server supports no extension")
	}
	if b64, there := header["b64"]; there && string(b64) != "true" {
		return refuse(CodeTokenInvalid, "the token's payload must be in base64url (b64)")
	}
	if typ, there := header["typ"]; there && !isAccessType(typ) {
		return refuse(CodeTokenInvalid, "the token's typ must be JWT or at+jwt; this token was made for another purpose")
	}
	return nil
}

// isAccessType reports whether a header's typ is that of an access token (RFC 8725,
// section 3.11). Media types ignore case.
func isAccessType(typ json.RawMessage) bool {
	var name string
	if json.Unmarshal(typ, &name) != nil {
		return false
	}
	name = strings.TrimPrefix(strings.ToLower(name), "application/")
	return name == "jwt" || name == "at+jwt"
}

// parseClaims reads claims strictly. It ignores unknown claims, and treats a null claim
// as absent.
func parseClaims(text []byte, now time.Time) (*claims, error) {
	members, err := strictjson.Members(text)
	if err != nil {
		return nil, refuse(CodeTokenInvalid, "the token's claims cannot be read: "+printable(err.Error()))
	}
	var c claims
	for _, one := range []struct {
		name string
		kind string
		into any
	}{
		{"systems", "a list of strings", &c.Systems},
		{"systemId", "a string", &c.SystemID},
		{"role", "a string", &c.Role},
		{"sub", "a string", &c.Subject},
		{"iss", "a string", &c.Issuer},
		{"aud", "a string or a list of strings", &c.Audience},
	} {
		value, there := members[one.name]
		if there && json.Unmarshal(value, one.into) != nil {
			return nil, refuse(CodeTokenInvalid, fmt.Sprintf("the token's %s must be %s", one.name, one.kind))
		}
	}
	for _, one := range []struct {
		name string
		into **jwt.NumericDate
	}{{"exp", &c.ExpiresAt}, {"nbf", &c.NotBefore}, {"iat", &c.IssuedAt}} {
		value, there := members[one.name]
		if !there || string(value) == "null" {
			continue
		}
		if *one.into, err = parseDate(one.name, value, now); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

// latest is the latest time that a token may contain. A later time is probably in the
// wrong unit, and some later years cannot be written as RFC 3339.
func latest(now time.Time) time.Time { return now.AddDate(100, 0, 0) }

// parseDate reads a NumericDate: seconds since 1970, as a number.
func parseDate(claim string, value json.RawMessage, now time.Time) (*jwt.NumericDate, error) {
	if c := value[0]; c != '-' && (c < '0' || c > '9') {
		return nil, refuse(CodeTokenInvalid, claim+" must be a number of seconds since 1970")
	}
	if value[0] == '-' {
		return nil, refuse(CodeTokenInvalid, claim+" is before 1970; it must be a number of seconds since then")
	}
	var seconds float64
	if json.Unmarshal(value, &seconds) != nil || seconds > float64(latest(now).Unix()) {
		return nil, refuse(CodeTokenInvalid, claim+" is more than a hundred years away; is it in milliseconds?")
	}
	return jwt.NewNumericDate(time.Unix(int64(seconds), 0)), nil
}

// printable replaces the characters of a client's text that a terminal or a log viewer
// may act on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// actor checks the claims that plugcast defines and returns the actor that they describe.
func (c *claims) actor() (domain.Actor, error) {
	if err := checkSubject(c.Subject); err != nil {
		return domain.Actor{}, err
	}
	if !c.Role.Valid() {
		return domain.Actor{}, refuse(CodeTokenInvalid, fmt.Sprintf("the token's role must be one of %v", domain.Roles()))
	}
	actor := domain.Actor{Subject: c.Subject, Role: c.Role, ExpiresAt: c.ExpiresAt.Time}
	names := c.Systems
	if c.SystemID != "" {
		names = append(slices.Clip(names), c.SystemID)
	}
	for _, name := range names {
		if name == everySystem {
			actor.AllSystems = true
			continue
		}
		system, err := domain.ParseSystemID(name)
		if err != nil {
			return domain.Actor{}, refuse(CodeTokenInvalid, "each system of the token must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
		}
		if !slices.Contains(actor.Systems, system) {
			actor.Systems = append(actor.Systems, system)
		}
	}
	if len(names) == 0 && c.Role != domain.RoleStaff {
		return domain.Actor{}, refuse(CodeTokenInvalid, "the token names no system (systems)")
	}
	return actor, nil
}

func checkSubject(sub string) error {
	switch {
	case sub == "":
		return refuse(CodeTokenInvalid, "the token names no subject (sub)")
	case len(sub) > maxSubject, slices.ContainsFunc([]rune(sub), notText):
		return refuse(CodeTokenInvalid, fmt.Sprintf("the token's sub must be at most %d bytes of printable text", maxSubject))
	default:
		return nil
	}
}

// notText reports characters that no name contains. U+FFFD is among them because half a
// surrogate pair is read as U+FFFD, which would make two subjects equal.
func notText(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }
