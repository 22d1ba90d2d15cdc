package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Origins are the web origins whose pages may call the server from a browser, besides
// the server's own origin. The zero value allows the server's own only.
type Origins struct {
	any       bool
	listed    map[string]bool
	wildcards []origin // the host of each begins with the dot behind the *
}

// origin is a web origin in the form of the Origin header: lower case, an ASCII host,
// and no port where it is the scheme's default.
type origin struct{ scheme, host, port string }

func (o origin) String() string {
	if o.port == "" {
		return o.scheme + "://" + o.host
	}
	return o.scheme + "://" + o.host + ":" + o.port
}

// ParseOrigins reads origins such as https://app.example.com, https://*.example.com
// for all subdomains, or "*" for any. It converts them to the form that browsers send,
// and refuses those that no browser ever sends.
func ParseOrigins(list []string) (Origins, error) {
	o := Origins{listed: map[string]bool{}}
	for _, text := range list {
		text = strings.TrimSpace(text)
		if text == "*" {
			o.any = true
			continue
		}
		parsed, wildcard, err := parseListed(text)
		switch {
		case err != nil:
			return Origins{}, fmt.Errorf("auth: the allowed origin %q can never match: %w (an origin looks like https://app.example.com, or "+
				"https://*.example.com for all subdomains)", text, err)
		case wildcard:
			o.wildcards = append(o.wildcards, parsed)
		default:
			o.listed[parsed.String()] = true
		}
	}
	return o, nil
}

// unsent are the schemes whose pages send no origin.
var unsent = []string{"ws", "wss", "file", "data", "blob", "about", "javascript", "ftp"}

// parseListed reads an origin of the configuration. For a wildcard, the returned host
// begins with the dot.
func parseListed(text string) (o origin, wildcard bool, err error) {
	if text == "null" {
		return o, false, errors.New("browsers send null for every page without an origin, such as a file, so null identifies no page")
	}
	bare := strings.Replace(text, "://*.", "://", 1)
	wildcard = bare != text
	if strings.Contains(bare, "*") {
		return o, false, errors.New("a * must be the first label of the host, right after ://")
	}
	o, err = parseOrigin(bare)
	switch {
	case err != nil:
		return o, false, err
	case slices.Contains(unsent, o.scheme):
		return o, false, fmt.Errorf("the scheme must be http or https, not %s", o.scheme)
	case !wildcard:
		return o, false, nil
	}
	suffix, managed := publicsuffix.PublicSuffix(o.host)
	if _, err := netip.ParseAddr(strings.Trim(o.host, "[]")); err == nil {
		return o, true, errors.New("an IP address has no subdomains")
	}
	if suffix == o.host && managed && o.host != "localhost" {
		return o, true, fmt.Errorf("anyone can register a name below %s", o.host)
	}
	o.host = "." + o.host
	return o, true, nil
}

// parseOrigin reads an origin and converts it to the form that browsers send.
func parseOrigin(text string) (o origin, err error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return o, errors.New("it is not a URL")
	case u.Scheme == "" || u.Host == "":
		return o, errors.New("it needs a scheme and a host")
	case u.User != nil:
		return o, errors.New("an origin has no user")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return o, errors.New("an origin ends with the host or the port")
	}
	o.scheme = strings.ToLower(u.Scheme)
	if o.host, err = canonicalHost(u.Hostname(), strings.HasPrefix(u.Host, "[")); err != nil {
		return o, err
	}
	if text := u.Port(); text != "" {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return o, errors.New("the port must be between 1 and 65535")
		}
		if number := strconv.FormatUint(port, 10); number != defaultPorts[o.scheme] {
			o.port = number
		}
	}
	return o, nil
}

// defaultPorts are the ports that browsers omit.
var defaultPorts = map[string]string{"http": "80", "https": "443"}

// names maps domain names as browsers do: UTS #46, non-transitional, with underscores
// allowed.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

func canonicalHost(host string, bracketed bool) (string, error) {
	if bracketed {
		address, err := netip.ParseAddr(host)
		if err != nil || address.Zone() != "" {
			return "", errors.New("its IPv6 address cannot be read")
		}
		if address.Is4In6() { // browsers do not write the IPv4 part with dots
			b := address.As16()
			return fmt.Sprintf("[::ffff:%x:%x]", uint16(b[12])<<8|uint16(b[13]), uint16(b[14])<<8|uint16(b[15])), nil
		}
		return "[" + address.String() + "]", nil
	}
	ascii, err := names.ToASCII(host)
	if err != nil {
		return "", errors.New("the host is not a domain name")
	}
	labels := strings.Split(strings.TrimSuffix(ascii, "."), ".")
	for _, label := range labels {
		const maxLabel = 63
		if label == "" || len(label) > maxLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", errors.New("the host is not a domain name")
		}
	}
	// Browsers treat a name that ends in a number as an IPv4 address.
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		if _, err := netip.ParseAddr(ascii); err != nil {
			return "", errors.New("the IPv4 address must be four decimal numbers")
		}
	}
	return ascii, nil
}

// Allow reports whether a page of the request's Origin may call the server. A request
// without an Origin is allowed, because it does not come from a foreign page. The
// server's own host is allowed with any scheme, because a proxy may terminate TLS.
func (o Origins) Allow(r *http.Request) bool {
	text := r.Header.Get("Origin")
	if text == "" || o.any || o.listed[text] {
		return true
	}
	from, err := parseOrigin(text)
	if err != nil {
		return false
	}
	return o.listed[from.String()] || o.matches(from) || isOwn(from, r.Host)
}

func (o Origins) matches(from origin) bool {
	return slices.ContainsFunc(o.wildcards, func(w origin) bool {
		return from.scheme == w.scheme && from.port == w.port && len(from.host) > len(w.host) && strings.HasSuffix(from.host, w.host)
	})
}

// isOwn reports whether the origin is the request's own host. The Host header may
// contain the default port.
func isOwn(from origin, host string) bool {
	to, err := parseOrigin(from.scheme + "://" + host)
	return err == nil && to == from
}
