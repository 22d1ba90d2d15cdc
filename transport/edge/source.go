package edge

import (
	"net/http"
	"net/netip"
	"strings"
)

// Source returns the part of a client's network address that limits are based on: the IPv4
// address, or the /64 of an IPv6 address, which is what one network customer has. It accepts
// host:port and bare addresses, and returns any other text unchanged.
func Source(remote string) string {
	address, ok := parseAddress(remote)
	if !ok {
		return remote
	}
	return sourceOf(address)
}

func sourceOf(address netip.Addr) string {
	if address.Is4() {
		return address.String()
	}
	const network = 64
	return netip.PrefixFrom(address.WithZone(""), network).Masked().String()
}

func parseAddress(text string) (netip.Addr, bool) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr().Unmap(), true
	}
	address, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return address.Unmap(), err == nil
}

// trusts reports whether the address is a trusted proxy's.
func (c *Config) trusts(address netip.Addr) bool {
	for _, proxy := range c.TrustedProxies {
		if proxy.Contains(address) {
			return true
		}
	}
	return false
}

// behindProxy returns the client that a trusted proxy names: the last address of
// X-Forwarded-For that is not a trusted proxy itself. The client may have forged everything
// before that.
func (c *Config) behindProxy(r *http.Request) (netip.Addr, bool) {
	chain := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	var client netip.Addr
	for i := len(chain) - 1; i >= 0; i-- {
		address, ok := parseAddress(strings.TrimSpace(chain[i]))
		if !ok {
			break
		}
		client = address
		if !c.trusts(address) {
			break
		}
	}
	return client, client.IsValid()
}
