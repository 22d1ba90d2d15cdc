package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// tokenCommand prints a token for scripts, tests and first steps. Real users get
// theirs from the SaaS, signed with the same secret or a key of its JWKS.
type tokenCommand struct {
	System  []string      `required:"" help:"Systems that the token is for; '*' for all." placeholder:"S1,S2"`
	Role    string        `required:"" help:"${roles}." enum:"${role_enum}"`
	Subject string        `help:"Whom it stands for; written to events as their actor. Default: the role." placeholder:"NAME"`
	TTL     time.Duration `name:"ttl" help:"How long it is good for." default:"1h"`

	Auth authFlags `embed:""`
}

// maxTTL is a little less than what a token may be valid for: a hundred years.
const maxTTL = 100 * 365 * 24 * time.Hour

// Run implements the command.
func (c *tokenCommand) Run(t terminal) error {
	if c.Auth.JWTSecret == "" {
		return usage("no secret to sign with: set PLUGCAST_JWT_SECRET (plugcast dev writes one to .plugcast/env)")
	}
	if err := c.Auth.config().Validate(); err != nil {
		return usage("%v", err)
	}
	if c.TTL < time.Second || c.TTL > maxTTL {
		return usage("--ttl must be 1s to %v (a hundred years), not %v", maxTTL, c.TTL)
	}
	actor := domain.Actor{Subject: c.Subject, Role: domain.Role(c.Role), ExpiresAt: time.Now().Add(c.TTL)}
	if actor.Subject == "" {
		actor.Subject = c.Role
	}
	if actor.AllSystems = slices.Contains(c.System, "*"); !actor.AllSystems {
		for _, name := range c.System {
			system, err := domain.ParseSystemID(strings.TrimSpace(name))
			if err != nil {
				return usage("--system: %v", err)
			}
			actor.Systems = append(actor.Systems, system)
		}
	}
	if !actor.AllSystems && len(actor.Systems) == 0 {
		return usage("--system names no system; '*' is all of them")
	}
	token, err := c.Auth.config().Sign(actor, time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(t.out, token)
	return err
}

// roleNames returns the names of all roles with a separator between them.
func roleNames(separator string) string {
	var names []string
	for _, role := range domain.Roles() {
		names = append(names, string(role))
	}
	return strings.Join(names, separator)
}
