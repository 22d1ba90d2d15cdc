// Package edge limits what a network client can hold before any face handles it: the
// number of connections, per address and in total; the time that a request may take to
// arrive; and the time that a response may wait for its reader. It also keeps a panic of a
// handler to its request ([Isolate]).
package edge

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// Config holds the limits of a [Server]. Zero fields take their defaults.
type Config struct {
	// MaxConnections limits the connections of the server. By default it follows from the
	// limit on file descriptors, see [Capacity].
	MaxConnections int
	// MaxPerAddress limits the connections of one client: of an IPv4 address or an IPv6
	// /64. Default: three quarters of MaxConnections, so that one address cannot exclude all
	// others, and many clients can still share one.
	MaxPerAddress int
	// TrustedProxies are the reverse proxies whose X-Forwarded-For names the client. Their
	// own connections count towards MaxConnections only.
	TrustedProxies []netip.Prefix

	HeaderTimeout time.Duration // for the header of a request; default 10 s
	// BodyTimeout is how long a whole request may take to arrive, even if no handler reads
	// it; default 30 s. Faces may require bodies sooner.
	BodyTimeout time.Duration
	// UnreadTimeout is BodyTimeout for the body of a GET or HEAD, which no face reads;
	// default 5 s.
	UnreadTimeout time.Duration
	// WriteTimeout is how long a client may take for each 64 KiB of a response; default
	// 30 s. It does not apply while a face has set a write deadline.
	WriteTimeout time.Duration
	IdleTimeout  time.Duration // between two requests; default 2 min
	MaxHeader    int           // bytes of the header of a request; default 32 KiB

	// Logger gets warnings; nil drops them.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.MaxConnections == 0 {
		c.MaxConnections = Capacity(descriptors())
	}
	c.MaxPerAddress = min(cmp.Or(c.MaxPerAddress, max(c.MaxConnections*3/4, 1)), c.MaxConnections)
	c.HeaderTimeout = cmp.Or(c.HeaderTimeout, 10*time.Second)
	c.BodyTimeout = cmp.Or(c.BodyTimeout, 30*time.Second)
	c.UnreadTimeout = cmp.Or(c.UnreadTimeout, 5*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 30*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 2*time.Minute)
	c.MaxHeader = cmp.Or(c.MaxHeader, 32<<10)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports limits that are invalid, or that the process's open-files limit excludes.
func (c Config) Validate() error {
	if c.MaxConnections < 0 || c.MaxPerAddress < 0 {
		return errors.New("edge: a limit on connections must be 1 or more, or 0 for the default")
	}
	if limit := descriptors(); uint64(c.MaxConnections)+leastKept > limit {
		return fmt.Errorf("edge: %d connections and the process's own files exceed the limit of %d open files: "+
			"raise the limit (ulimit -n, LimitNOFILE) or allow fewer connections", c.MaxConnections, limit)
	}
	return nil
}

const (
	// keptDescriptors is how many file descriptors are reserved for connections to Redis
	// and Postgres, to the Shelly Cloud and other deployments, and for files.
	keptDescriptors = 256
	// leastKept is how many are reserved if an operator sets the number of connections.
	leastKept = 64
	// maxConnections bounds the default. With more connections, memory runs out first, and
	// an operator has to decide how much there is.
	maxConnections = 1 << 16
)

// Capacity returns the default number of connections for a number of file descriptors: an
// eighth of them, and at least 256, are reserved for everything else.
func Capacity(descriptors uint64) int {
	descriptors = min(descriptors, 1<<31)
	kept := max(keptDescriptors, descriptors/8)
	if descriptors < 2*kept {
		kept = descriptors / 2
	}
	return int(min(max(descriptors-kept, 1), maxConnections))
}

// descriptors returns how many files the process may have open. The Go runtime has already
// raised the soft limit to the hard limit.
func descriptors() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // the least on most systems
	}
	return limit.Cur
}

// ParseProxies reads addresses and networks such as 10.0.0.0/8.
func ParseProxies(list []string) ([]netip.Prefix, error) {
	var proxies []netip.Prefix
	for _, text := range list {
		text = strings.TrimSpace(text)
		if prefix, err := netip.ParsePrefix(text); err == nil {
			proxies = append(proxies, prefix.Masked())
			continue
		}
		address, err := netip.ParseAddr(text)
		if err != nil || address.Zone() != "" {
			return nil, fmt.Errorf("a proxy must be an IP address or a network such as 10.0.0.0/8, not %q", text)
		}
		address = address.Unmap()
		proxies = append(proxies, netip.PrefixFrom(address, address.BitLen()))
	}
	return proxies, nil
}
