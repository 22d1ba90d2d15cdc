package streams

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ParseURL reads where Redis is:
//
//	redis://[user:password@]host[:port][/db]                one server
//	rediss://…                                              the same over TLS
//	redis://host1,host2:6380,host3?cluster=true             a Redis Cluster
//	redis://host1:26379,host2:26379[/db]?sentinel=mymaster  the master that these sentinels name
//
// Ports default to 6379, of sentinels to 26379. User and password are for Redis,
// not for the sentinels. The error never shows the URL, because of the password
// in it.
func ParseURL(s string) (*redis.UniversalOptions, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("streams: the Redis URL cannot be read; it looks like redis://[user:password@]host[:port][/db]")
	}
	options := &redis.UniversalOptions{Username: u.User.Username()}
	options.Password, _ = u.User.Password()
	switch u.Scheme {
	case "redis":
	case "rediss":
		options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		return nil, errors.New("streams: a Redis URL begins with redis:// or rediss://")
	}
	query := u.Query()
	for name := range query {
		if name != "cluster" && name != "sentinel" {
			return nil, fmt.Errorf("streams: a Redis URL takes ?cluster=true or ?sentinel=NAME, not %q", name)
		}
	}
	options.MasterName = query.Get("sentinel")
	if v := query.Get("cluster"); v != "" {
		if options.IsClusterMode, err = strconv.ParseBool(v); err != nil {
			return nil, errors.New("streams: cluster in the Redis URL is true or false")
		}
	}
	if options.DB, err = database(u.Path); err != nil {
		return nil, err
	}
	options.Addrs = addresses(u.Host, options.MasterName != "")
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
		return 0, errors.New("streams: the path of a Redis URL is the number of a database")
	}
	return db, nil
}

func addresses(hosts string, sentinel bool) []string {
	port := "6379"
	if sentinel {
		port = "26379"
	}
	var addrs []string
	for host := range strings.SplitSeq(hosts, ",") {
		if host == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
		addrs = append(addrs, host)
	}
	return addrs
}
