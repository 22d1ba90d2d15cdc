// Package bridge runs the links that exchange events with other deployments and servers: it
// reads their configuration, runs them in the partitions that the process owns, and reports
// their status. Each kind of link is a package below this one; see [Link].
package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// configuration decodes the file that configures the links.
var configuration = strictjson.Reader{Whole: "the configuration"}

// Direction is the way in which events cross a link.
type Direction string

// The directions, as seen from this deployment.
const (
	Pull Direction = "pull" // from the far end
	Push Direction = "push" // to the far end
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

// System is the configuration of one system of a link. Kinds with more members embed it.
type System struct {
	System    domain.SystemID `json:"system"`
	Direction Direction       `json:"direction"`
	// Types lists the event types that cross the link; all when empty. If it changes, the
	// link does not make up for the events that it left out before.
	Types []domain.EventType `json:"types,omitempty"`
}

// Wants reports whether events of the type cross the link.
func (s *System) Wants(t domain.EventType) bool {
	return len(s.Types) == 0 || slices.Contains(s.Types, t)
}

// Check validates s. Its errors begin with the member.
func (s *System) Check() error {
	if s.System == domain.PlatformSystem {
		return fmt.Errorf("system: %s belongs to this deployment and cannot be bridged", domain.PlatformSystem)
	}
	if _, err := domain.ParseSystemID(string(s.System)); err != nil {
		return fmt.Errorf("system: %s", domain.AsError(err).Detail)
	}
	if s.Direction == "" {
		return errors.New("direction: is missing: it is pull, push or both")
	}
	for i, t := range s.Types {
		if _, err := domain.ParseEventType(string(t)); err != nil {
			return fmt.Errorf("types[%d]: %s", i, domain.AsError(err).Detail)
		}
	}
	return nil
}

// Token says where to find a link's token. The token itself is never in the configuration.
type Token struct {
	File string `json:"file,omitempty"` // read for each connection
	Env  string `json:"env,omitempty"`  // the name of an environment variable

	env func(string) string
}

// Read returns the token, without white space around it. It fails if there is none.
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

// Common has the members that every link has. Kinds embed it in their configuration.
type Common struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	URL   string `json:"url"`
	Token Token  `json:"token"`
}

// Check validates c. Its errors begin with the member. The URL must have one of the schemes,
// and no user, query or fragment: those could hold a secret, and plugcast shows URLs.
func (c *Common) Check(schemes ...string) error {
	if _, err := domain.ParseSystemID(c.Name); err != nil { // the same alphabet
		return errors.New("name: must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme):
		return fmt.Errorf("url: must look like %s://HOST", schemes[0])
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("url: must have no user, query or fragment; the link has a member for the token")
	case (c.Token.File == "") == (c.Token.Env == ""):
		return errors.New("token: needs either file or env")
	}
	return nil
}

// Factory makes a link from its part of the configuration.
type Factory func(raw Raw) (Link, error)

// Raw is the part of the configuration that a [Factory] reads.
type Raw struct {
	json json.RawMessage
	path string
	env  func(string) string
}

// Decode decodes the link into v, a pointer to a struct. It fails, with the path of the
// member, on a member that v does not have, that appears twice, or that has another type.
func (r Raw) Decode(v any) error { return configuration.Decode(r.json, r.path, v) }

// BindToken completes a decoded token, so that it can be read.
func (r Raw) BindToken(t *Token) { t.env = r.env }

// AtPath puts the path of this link before an error that begins with a member, as those of
// System.Check and Common.Check do.
func (r Raw) AtPath(err error) error { return fmt.Errorf("%s.%w", r.path, err) }

// maxConfig bounds the file, in bytes.
const maxConfig = 1 << 20

// Load reads a configuration, with a factory for each kind of link. Errors name the member,
// as in bridges[0].systems[1].direction, and never show a value that could be a secret. env
// looks up environment variables.
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
		var head struct {
			Kind string `json:"kind"`
		}
		if json.Unmarshal(raw, &head) != nil || kinds[head.Kind] == nil {
			return nil, fmt.Errorf("%s.kind: must be one of %s", path, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
		}
		if links[i], err = kinds[head.Kind](Raw{json: raw, path: path, env: env}); err != nil {
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

func checkSystems(path string, systems []System) error {
	if len(systems) == 0 {
		return fmt.Errorf("%s.systems: is empty", path)
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
