// Package bridge runs links to other places that events of our systems come from
// or go to: what is configured, who runs it, and what is known of how it goes. A
// kind of link lives in a package below this one and knows how to talk; see
// [Link].
package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// configuration reads the file of links.
var configuration = strictjson.Reader{Whole: "the configuration"}

// Direction is which way events go over a link.
type Direction string

// The directions, as seen from here.
const (
	Pull Direction = "pull" // from there to here
	Push Direction = "push" // from here to there
	Both Direction = "both"
)

// Pulls reports whether events come in.
func (d Direction) Pulls() bool { return d == Pull || d == Both }

// Pushes reports whether events go out.
func (d Direction) Pushes() bool { return d == Push || d == Both }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Direction) UnmarshalText(b []byte) error {
	*d = Direction(b)
	if !d.Pulls() && !d.Pushes() {
		return fmt.Errorf("must be pull, push or both, not %.40q", b)
	}
	return nil
}

// System is one system of a link, as every kind of link has it. A kind that has
// more to say embeds it.
type System struct {
	System    domain.SystemID `json:"system"`
	Direction Direction       `json:"direction"`
	// Types are the events that go over the link; all when empty. Changing it does
	// not bring what was left out before.
	Types []domain.EventType `json:"types,omitempty"`
}

// Wants reports whether events of the type go over the link.
func (s *System) Wants(t domain.EventType) bool {
	return len(s.Types) == 0 || slices.Contains(s.Types, t)
}

// Check says what is wrong with s, as a text that begins with the member.
func (s *System) Check() error {
	if s.System == domain.PlatformSystem {
		return fmt.Errorf("system: %s is this deployment's own and is never bridged", domain.PlatformSystem)
	}
	if _, err := domain.ParseSystemID(string(s.System)); err != nil {
		return fmt.Errorf("system: %s", domain.AsError(err).Detail)
	}
	if s.Direction == "" {
		return errors.New("direction: is needed: pull, push or both")
	}
	for i, t := range s.Types {
		if _, err := domain.ParseEventType(string(t)); err != nil {
			return fmt.Errorf("types[%d]: %s", i, domain.AsError(err).Detail)
		}
	}
	return nil
}

// Token is where a link's token is found. The token itself is never in the
// configuration.
type Token struct {
	File string `json:"file,omitempty"` // read anew for each connection
	Env  string `json:"env,omitempty"`  // the name of an environment variable

	env func(string) string
}

// Read returns the token.
func (t *Token) Read() (string, error) {
	if t.File == "" {
		if token := strings.TrimSpace(t.env(t.Env)); token != "" {
			return token, nil
		}
		return "", fmt.Errorf("bridge: the environment variable %s has no token", t.Env)
	}
	file, err := os.Open(t.File)
	if err != nil {
		return "", fmt.Errorf("bridge: read the token: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return "", fmt.Errorf("bridge: read the token: %w", err)
	}
	if token := strings.TrimSpace(string(text)); token != "" {
		return token, nil
	}
	return "", fmt.Errorf("bridge: the file %s has no token", t.File)
}

// Common is what a link of any kind has. Kinds embed it in their configuration.
type Common struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	URL   string `json:"url"`
	Token Token  `json:"token"`
}

// Check says what is wrong with c, as a text that begins with the member. The URL
// must be of one of the schemes, and have no user, query or fragment: those could
// hold a secret, and URLs are shown.
func (c *Common) Check(schemes ...string) error {
	if _, err := domain.ParseSystemID(c.Name); err != nil { // the same alphabet
		return errors.New("name: must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme):
		return fmt.Errorf("url: must look like %s://HOST", schemes[0])
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("url: must have no user, query or fragment; the token has a member of its own")
	case (c.Token.File == "") == (c.Token.Env == ""):
		return errors.New("token: needs either file or env")
	}
	return nil
}

// A Kind makes links of one kind out of their part of the configuration.
type Factory func(raw Raw) (Link, error)

// Raw is one link in the configuration, not yet read by its kind.
type Raw struct {
	json json.RawMessage
	path string
	env  func(string) string
}

// Decode reads the link into v, a pointer to a struct. Members that v does not
// have, that are there twice or that have another type are refused, with their
// path.
func (r Raw) Decode(v any) error { return configuration.Decode(r.json, r.path, v) }

// Bind completes a token that Decode read.
func (r Raw) BindToken(t *Token) { t.env = r.env }

// Wrong says that something is wrong below this link. What err says begins with
// the member, as System.Check and Common.Check do.
func (r Raw) AtPath(err error) error { return fmt.Errorf("%s.%w", r.path, err) }

// maxConfig bounds the file.
const maxConfig = 1 << 20

// Load reads a configuration. Errors name the file's member, as in
// bridges[0].systems[1].direction, and never what a secret could be in. env looks
// up environment variables.
func Load(in io.Reader, kinds map[string]Factory, env func(string) string) ([]Link, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("bridge: read the configuration: %w", err)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("bridge: the configuration is over %d bytes", maxConfig)
	}
	var file struct {
		Bridges []json.RawMessage `json:"bridges"`
	}
	if err := configuration.Decode(bytes.TrimSpace(text), "", &file); err != nil {
		return nil, err
	}
	links := make([]Link, len(file.Bridges))
	names := map[string]bool{}
	for i, raw := range file.Bridges {
		path := fmt.Sprintf("bridges[%d]", i)
		var which struct {
			Kind string `json:"kind"`
		}
		if json.Unmarshal(raw, &which) != nil || kinds[which.Kind] == nil {
			return nil, fmt.Errorf("%s.kind: must be one of %s", path, strings.Join(kindNames(kinds), ", "))
		}
		if links[i], err = kinds[which.Kind](Raw{json: raw, path: path, env: env}); err != nil {
			return nil, err
		}
		if name := links[i].Name(); names[name] {
			return nil, fmt.Errorf("%s.name: %s appears twice", path, name)
		}
		names[links[i].Name()] = true
		if err := checkSystems(path, links[i].Systems()); err != nil {
			return nil, err
		}
	}
	return links, nil
}

func kindNames(kinds map[string]Factory) []string {
	var names []string
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func checkSystems(path string, systems []System) error {
	if len(systems) == 0 {
		return fmt.Errorf("%s.systems: names no system", path)
	}
	seen := map[domain.SystemID]bool{}
	for i := range systems {
		if err := systems[i].Check(); err != nil {
			return fmt.Errorf("%s.systems[%d].%w", path, i, err)
		}
		if seen[systems[i].System] {
			return fmt.Errorf("%s.systems[%d].system: %s appears twice", path, i, systems[i].System)
		}
		seen[systems[i].System] = true
	}
	return nil
}
