package bridge_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/peer"
)

var kinds = map[string]bridge.Factory{
	peer.Kind: peer.New(peer.Parts{Deployment: "us", Logger: slog.New(slog.DiscardHandler)}),
}

func load(text string) ([]bridge.Link, error) {
	return bridge.Load(strings.NewReader(text), kinds, func(string) string { return "" })
}

const good = `{"bridges":[{"name":"cloud","kind":"plugcast","url":"https://cloud.example.com/","token":{"file":"/run/token"},
 "systems":[{"system":"clinica-sol","direction":"both"},
  {"system":"centro-luna","direction":"pull","types":["device-update"],"from":"now"}]}]}`

func TestLoad(t *testing.T) {
	t.Parallel()
	links, err := load(good)
	if err != nil {
		t.Fatal(err)
	}
	want := []bridge.System{
		{System: "clinica-sol", Direction: bridge.Both},
		{System: "centro-luna", Direction: bridge.Pull, Types: []domain.EventType{"device-update"}},
	}
	if len(links) != 1 || links[0].Name() != "cloud" || links[0].Kind() != "plugcast" {
		t.Fatalf("loaded %v", links)
	}
	if diff := cmp.Diff(want, links[0].Systems()); diff != "" {
		t.Error(diff)
	}
}

// The error names the member, and never shows a value that could be a secret.
func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	replace := func(old, with string) string { return strings.Replace(good, old, with, 1) }
	for name, c := range map[string]struct{ text, want string }{
		"not JSON":           {`{"bridges":`, "the configuration: it is not valid JSON"},
		"an array":           {`[]`, "the configuration: must be an object"},
		"unknown at the top": {`{"bridge":[]}`, "bridge: is not known"},
		"unknown member":     {replace(`"from"`, `"form"`), "bridges[0].systems[1].form: is not known"},
		"another case":       {replace(`"name"`, `"Name"`), "bridges[0].Name: is not known"},
		"twice":              {replace(`"kind"`, `"name":"x","kind"`), "bridges[0].name: appears twice"},
		"unknown kind":       {replace(`"plugcast"`, `"mqtt"`), "bridges[0].kind: must be one of plugcast"},
		"no such direction":  {replace(`"both"`, `"up"`), `bridges[0].systems[0].direction: must be pull, push or both, not "up"`},
		"wrong type":         {replace(`"both"`, `7`), "bridges[0].systems[0].direction: must not be number"},
		"no direction":       {replace(`,"direction":"both"`, ""), "bridges[0].systems[0].direction: is missing"},
		"types in one": {replace(`"direction":"both"`, `"direction":"both","types":["device-update","a,b"]`),
			"bridges[0].systems[0].types[1]: an event type is"},
		"a type of no name": {replace(`"direction":"both"`, `"direction":"both","types":[""]`),
			"bridges[0].systems[0].types[0]: an event type is"},
		"bad from":          {replace(`"now"`, `"later"`), "bridges[0].systems[1].from: must be beginning or now"},
		"platform":          {replace(`"clinica-sol"`, `"_platform"`), "bridges[0].systems[0].system: _platform belongs"},
		"system twice":      {replace(`"centro-luna"`, `"clinica-sol"`), "bridges[0].systems[1].system: clinica-sol appears twice"},
		"no systems":        {replace(`"systems":[`, `"systems":[],"x":[`), "bridges[0].x: is not known"},
		"secret in the URL": {replace(`https://cloud`, `https://me:hunter2@cloud`), "bridges[0].url: must have no user"},
		"a bad scheme":      {replace(`https://`, `ftp://`), "bridges[0].url: must look like https://HOST"},
		"the token itself":  {replace(`{"file":"/run/token"}`, `"hunter2"`), "bridges[0].token: must be an object"},
		"no token":          {replace(`{"file":"/run/token"}`, `{}`), "bridges[0].token: needs either file or env"},
		"null":              {replace(`"cloud"`, `null`), "bridges[0].name: must not be null"},
		"name twice":        {strings.Replace(good, `}]}]}`, `}]},`+good[len(`{"bridges":[`):], 1), "bridges[1].name: cloud appears twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(c.text)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s …", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	token := bridge.Token{File: file}
	if _, err := token.Read(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	for _, content := range []string{" one\n", "two\n"} { // each Read reads the file
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := token.Read(); err != nil || got != strings.TrimSpace(content) {
			t.Errorf("read %q, %v", got, err)
		}
	}
}
