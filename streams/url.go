package streams

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/redis/go-redis/v9"
)

// ParseURL parses the URL of Redis:
//
//	redis://[user:password@]host[:port][/db]                one server
//	rediss://…                                              the same over TLS
//	redis://host1,host2:6380,host3?cluster=true             a Redis Cluster
//	redis://host1:26379,host2:26379[/db]?sentinel=mymaster  the master that these sentinels name
//
// Ports default to 6379, those of sentinels to 26379. User and password are for Redis, not for
// the sentinels. The error never contains the URL, because of the password in it.
func ParseURL(s string) (*redis.UniversalOptions, error) {
	rest, hosts := cutHosts(s)
	u, err := url.Parse(rest)
	if err != nil {
		return nil, errors.New("streams: cannot parse the Redis URL; expected redis://[user:password@]host[:port][/db]")
	}
	options := &redis.UniversalOptions{Username: u.User.Username()}
	options.Password, _ = u.User.Password()
	switch u.Scheme {
	case "redis":
	case "rediss":
		options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		return nil, errors.New("streams: a Redis URL must begin with redis:// or rediss://")
	}
	query := u.Query()
	for name := range query {
		if name != "cluster" && name != "sentinel" {
			return nil, fmt.Errorf("streams: a Redis URL accepts ?cluster=true and ?sentinel=NAME, not %q", name)
		}
	}
	options.MasterName = query.Get("sentinel")
	if v := query.Get("cluster"); v != "" {
		if options.IsClusterMode, err = strconv.ParseBool(v); err != nil {
			return nil, errors.New("streams: cluster in the Redis URL must be true or false")
		}
	}
	if options.DB, err = database(u.Path); err != nil {
		return nil, err
	}
	if options.Addrs, err = addresses(hosts, options.MasterName != ""); err != nil {
		return nil, err
	}
	switch {
	case len(options.Addrs) == 0:
		return nil, errors.New("streams: the Redis URL names no host")
	case options.IsClusterMode && (options.MasterName != "" || options.DB != 0):
		return nil, errors.New("streams: a Redis Cluster has neither sentinels nor numbered databases")
	case len(options.Addrs) > 1 && !options.IsClusterMode && options.MasterName == "":
		return nil, errors.New("streams: several hosts in the Redis URL need ?cluster=true or ?sentinel=NAME")
	}
	return options, nil
}

func database(path string) (int, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		return 0, nil
	}
	db, err := strconv.Atoi(path)
	if err != nil || db < 0 {
		return 0, errors.New("streams: the path of a Redis URL must be the number of a database")
	}
	return db, nil
}

// cutHosts removes the hosts from a URL, because net/url accepts only one.
func cutHosts(s string) (rest, hosts string) {
	scheme, authority, _ := strings.Cut(s, "://")
	path := ""
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		authority, path = authority[:i], authority[i:]
	}
	i := strings.LastIndexByte(authority, '@') + 1
	return scheme + "://" + authority[:i] + "hosts" + path, authority[i:]
}

func addresses(hosts string, sentinel bool) ([]string, error) {
	defaultPort := "6379"
	if sentinel {
		defaultPort = "26379"
	}
	var addrs []string
	for address := range strings.SplitSeq(hosts, ",") {
		if address == "" {
			continue
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			host, port = strings.Trim(address, "[]"), defaultPort
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsFunc(host, notInHost) {
			return nil, errors.New("streams: a host in the Redis URL must have the form name, name:port or [address]:port")
		}
		addrs = append(addrs, net.JoinHostPort(host, port))
	}
	return addrs, nil
}

func notInHost(r rune) bool {
	return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".-_:%", r)
}
