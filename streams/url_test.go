package streams_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/streams"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"redis://localhost":                                "[localhost:6379] db 0 tls false cluster false master  user  password ",
		"redis://u:p%40ss@[::1]:7000/3":                    "[[::1]:7000] db 3 tls false cluster false master  user u password p@ss",
		"rediss://:secret@redis.example/":                  "[redis.example:6379] db 0 tls true cluster false master  user  password secret",
		"redis://a,b:7000,c?cluster=true":                  "[a:6379 b:7000 c:6379] db 0 tls false cluster true master  user  password ",
		"rediss://one?cluster=1":                           "[one:6379] db 0 tls true cluster true master  user  password ",
		"redis://s1,s2:1/2?sentinel=mymaster":              "[s1:26379 s2:1] db 2 tls false cluster false master mymaster user  password ",
		"redis://u:p@s1:26379,s2:26379/?sentinel=mymaster": "[s1:26379 s2:26379] db 0 tls false cluster false master mymaster user u password p",
	} {
		o, err := streams.ParseURL(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		got := fmt.Sprintf("%v db %d tls %v cluster %v master %s user %s password %s",
			o.Addrs, o.DB, o.TLSConfig != nil, o.IsClusterMode, o.MasterName, o.Username, o.Password)
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", url, got, want)
		}
	}
}

func TestParseURLRefusesAndKeepsTheSecret(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"http://:hunter2@localhost", "redis://:hunter2@", "redis://:hunter2@a,b", "redis://:hunter2@a:port", "redis://:hunter2@a/x",
		"redis://:hunter2@a?sentinels=m", "redis://:hunter2@a/1?cluster=true", "redis://:hunter2@a?cluster=true&sentinel=m",
		"redis://:hunter2@a?cluster=maybe", "redis://:hunter2@a\x7f", "hunter2",
	} {
		_, err := streams.ParseURL(url)
		if err == nil {
			t.Errorf("%q was taken", url)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]streams.Config{
		"no Redis":          {},
		"braces":            {URL: "redis://a", Prefix: "x{y}"},
		"partitions":        {URL: "redis://a", Partitions: -1},
		"many partitions":   {URL: "redis://a", Partitions: streams.MaxPartitions + 1},
		"retention":         {URL: "redis://a", Retention: -1},
		"a URL of its kind": {URL: "postgres://a"},
	} {
		if err := cfg.Validate(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	cfg := streams.Config{URL: "redis://a"}
	if err := cfg.Validate(); err != nil || cfg.Partitions != 16 || cfg.Prefix != "plugcast" || cfg.Retention != streams.DefaultRetention {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestOpenFailsWithoutRedisAndKeepsTheSecret(t *testing.T) {
	t.Parallel()
	_, err := streams.Open(t.Context(), streams.Config{URL: "redis://:hunter2@127.0.0.1:1"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
