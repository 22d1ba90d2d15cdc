package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/plugcast/plugcast"

// testEquipment are the packages that only tests use, with all below them.
var testEquipment = []string{
	"transport/testpeer", "streams/redisserver/redistest", "projections/pgserver/pgtest", "streams/childproc/scratch",
}

// importRules say who may not import whom, and why. Paths of this module are
// given without the module's name; a path stands for all below it. Tests are
// free: they may use the harness of any package.
var importRules = []struct {
	from   string   // packages that the rule is for
	except []string // packages below from that it is not for
	never  []string
	but    []string // packages below never that may be imported all the same
	why    string
}{
	{
		from: "domain", never: []string{"cmd", "projections", "streams", "migrations", "transport", "github.com", "golang.org"},
		why: "the fold and the decisions are pure; the standard library is all they need",
	},
	{
		from: "streams", never: []string{"cmd", "projections", "migrations", "transport"},
		why: "the log knows nothing of its readers",
	},
	{
		from: "projections", never: []string{"cmd", "transport"},
		why: "read models know nothing of the faces",
	},
	{
		from: "migrations", never: []string{"cmd", "transport", "projections", "streams"},
		why: "the schema stands alone",
	},
	{
		from: "transport", except: testEquipment, never: []string{"cmd", "streams", "projections", "migrations"},
		why: "a face declares the small interface that it reads through, so that it can be tested without a database",
	},
	{
		from: "", except: []string{"streams"}, never: []string{"github.com/redis", "github.com/go-redis", "github.com/ThreeDotsLabs"},
		why: "package streams and what is below it are the only home of Redis and Watermill",
	},
	{
		from: "", except: []string{"projections", "migrations"}, never: []string{"github.com/jackc", "github.com/pressly"},
		why: "packages projections and migrations are the only home of Postgres",
	},
	{
		from: "", except: []string{"transport/ws", "transport/socketio", "transport/shelly"}, never: []string{"github.com/olahol/melody"},
		why: "Melody has traps, and three places that know them",
	},
	{
		from: "", except: testEquipment, never: testEquipment,
		why: "test equipment fails the test that it works for, and takes liberties that a product may not",
	},
	{
		from: "domain", except: []string{"domain/isolate"}, never: []string{"log", "log/slog", "os", "net", "net/http", "sync"},
		why: "no log, no environment, no network and no goroutine in the fold and the decisions",
	},
	{
		from: "domain/isolate", never: []string{"domain"}, but: []string{"domain/backoff"},
		why: "it lies below domain because every package may import what is there, and knows nothing of it",
	},
	{
		from: "domain/backoff", never: []string{"domain"},
		why: "every package that repeats something waits with it, also domain/isolate",
	},
}

func TestImportRules(t *testing.T) {
	t.Parallel()
	packages := listPackages(t)
	for _, rule := range importRules {
		for _, p := range packages {
			if !below(p.path, rule.from) || belowAny(p.path, rule.except) {
				continue
			}
			for _, imported := range p.imports {
				if below(imported, rule.from) && rule.from != "" {
					continue
				}
				if belowAny(imported, rule.never) && !belowAny(imported, rule.but) {
					t.Errorf("%s imports %s: %s", p.path, imported, rule.why)
				}
			}
		}
	}
}

// The faces do not know each other: what they share is in auth, rooms, limit, edge,
// handoff and strictjson, the life of their clients' sockets in client, the packets of
// Socket.IO in packet, and the credentials of connections in credential. Peers for tests
// may use any face.
func TestFacesAreApart(t *testing.T) {
	t.Parallel()
	shared := []string{
		"transport/auth", "transport/client", "transport/rooms", "transport/limit", "transport/handoff", "transport/edge",
		"transport/socketio/packet", "transport/strictjson", "transport/admission", "transport/snapshot",
		"transport/shelly/credential",
	}
	for _, p := range listPackages(t) {
		if !below(p.path, "transport") || belowAny(p.path, testEquipment) {
			continue
		}
		face := strings.Join(strings.SplitN(p.path, "/", 3)[:2], "/")
		for _, imported := range p.imports {
			if below(imported, "transport") && !below(imported, face) && !belowAny(imported, shared) {
				t.Errorf("%s imports %s: faces do not import each other", p.path, imported)
			}
		}
	}
}

type importer struct {
	path    string
	imports []string
}

func listPackages(t *testing.T) []importer {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []importer
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for i := range p.Imports {
			p.Imports[i] = strings.TrimPrefix(p.Imports[i], module+"/")
		}
		packages = append(packages, importer{strings.TrimPrefix(p.ImportPath, module+"/"), p.Imports})
	}
	if len(packages) < 5 {
		t.Fatalf("go list found only %d packages", len(packages))
	}
	return packages
}

func below(path, parent string) bool {
	return parent == "" || path == parent || strings.HasPrefix(path, parent+"/")
}

func belowAny(path string, parents []string) bool {
	for _, parent := range parents {
		if below(path, parent) {
			return true
		}
	}
	return false
}
