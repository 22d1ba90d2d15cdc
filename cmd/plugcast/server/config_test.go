package server

import (
	"errors"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/ratelimit"
	"github.com/plugcast/plugcast/transport/auth"
)

// Open names the field that is wrong, before it connects to anything.
func TestOpenChecksTheConfiguration(t *testing.T) {
	t.Parallel()
	gateway, worker := []string{RoleGateway}, []string{RoleWorker}
	for name, one := range map[string]struct {
		change func(c *Config)
		field  string // "" if the configuration is right
	}{
		"right":                     {func(*Config) {}, ""},
		"no role":                   {func(c *Config) { c.Roles = nil }, "Roles"},
		"an unknown role":           {func(c *Config) { c.Roles = []string{RoleWorker, "king"} }, "Roles"},
		"no key for tokens":         {func(c *Config) { c.Auth = auth.Config{} }, "Auth"},
		"a limit below zero":        {func(c *Config) { c.Limits = ratelimit.Config{domain.FlowJoins: {PerSecond: -1}} }, "Limits"},
		"too few connections":       {func(c *Config) { c.Edge.MaxConnections = -1 }, "Edge"},
		"silent at once":            {func(c *Config) { c.SilentAfter = 0 }, "SilentAfter"},
		"no device":                 {func(c *Config) { c.MaxSystemDevices = 0 }, "MaxSystemDevices"},
		"a gateway without port":    {func(c *Config) { c.Roles, c.Advertise = gateway, "plugcast.example.com" }, "Advertise"},
		"a worker without port":     {func(c *Config) { c.Roles, c.Advertise = worker, "plugcast.example.com" }, ""},
		"a gateway with an address": {func(c *Config) { c.Roles, c.Advertise = gateway, "plugcast.example.com:80" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Config{
				Roles: []string{RoleGateway, RoleWorker}, Auth: auth.Config{Secret: make([]byte, auth.MinSecret)},
				SilentAfter: 1, MaxSystemDevices: 1,
			}
			one.change(&c)
			wrong := new(ConfigError)
			if err := c.validate(); errors.As(err, &wrong) != (one.field != "") || wrong.Field != one.field {
				t.Errorf("%v, want an error about %q", err, one.field)
			}
		})
	}
}
