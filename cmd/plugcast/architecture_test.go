package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "draw the picture in docs/architecture.md again")

// A floor is a group of rooms that are on the same height of the house. A room is a
// package with all that is below it.
type floor struct {
	name  string
	about string
	rooms []string
}

// floors are listed from the top. A room may import rooms below its floor and, where
// that makes no circle, on its floor.
var floors = []floor{
	{"program", "flags, commands, wiring", []string{"cmd"}},
	{"edges", "what talks to clients, devices and other deployments", []string{
		"transport/ws", "transport/socketio", "transport/sse", "transport/web", "transport/rest", "transport/shelly", "transport/bridge",
	}},
	{"shared by the edges", "", []string{
		"transport/admission", "transport/auth", "transport/client", "transport/disconnect", "transport/edge", "transport/handoff",
		"transport/limit",
		"transport/rooms", "transport/snapshot", "transport/strictjson",
	}},
	{"stores", "Redis and Postgres", []string{"streams", "projections", "migrations"}},
	{"facts", "events, the fold, decisions", []string{"domain"}},
}

// TestArchitecture holds the picture in docs/architecture.md against the imports of the
// code: every package is in a room, no room imports one above it, there is no circle
// between rooms, and the picture shows the arrows that there are.
func TestArchitecture(t *testing.T) {
	t.Parallel()
	level := map[string]int{}
	for i, f := range floors {
		for _, room := range f.rooms {
			level[room] = i
		}
	}
	arrows := map[string]map[string]bool{}
	for _, p := range listPackages(t) {
		if belowAny(p.path, testEquipment) {
			continue
		}
		from, known := roomOf(p.path, level)
		if !known {
			t.Errorf("package %s is in no room: add it to a floor in %s", p.path, "architecture_test.go")
			continue
		}
		for _, imported := range p.imports {
			to, ours := roomOf(imported, level)
			if !ours || to == from {
				continue
			}
			if level[to] < level[from] {
				t.Errorf("%s imports %s, which is on a floor above it", p.path, imported)
			}
			if arrows[from] == nil {
				arrows[from] = map[string]bool{}
			}
			arrows[from][to] = true
		}
	}
	if circle := findCircle(arrows); circle != nil {
		t.Fatalf("rooms import each other in a circle: %s", strings.Join(circle, " → "))
	}
	checkPicture(t, drawFloors(reduced(arrows)))
}

// roomOf returns the room that a package is in.
func roomOf(path string, level map[string]int) (string, bool) {
	for path != "" {
		if _, known := level[path]; known {
			return path, true
		}
		cut := strings.LastIndex(path, "/")
		path = path[:max(cut, 0)]
	}
	return "", false
}

// reaches reports whether there is a way along the arrows.
func reaches(arrows map[string]map[string]bool, from, to string) bool {
	for next := range arrows[from] {
		if next == to || reaches(arrows, next, to) {
			return true
		}
	}
	return false
}

// findCircle returns the rooms of a circle, or nil.
func findCircle(arrows map[string]map[string]bool) []string {
	done := map[string]bool{}
	var visit func(room string, path []string) []string
	visit = func(room string, path []string) []string {
		if at := slices.Index(path, room); at >= 0 {
			return append(path[at:], room)
		}
		if done[room] {
			return nil
		}
		for _, next := range slices.Sorted(maps.Keys(arrows[room])) {
			if circle := visit(next, append(path, room)); circle != nil {
				return circle
			}
		}
		done[room] = true
		return nil
	}
	for _, room := range slices.Sorted(maps.Keys(arrows)) {
		if circle := visit(room, nil); circle != nil {
			return circle
		}
	}
	return nil
}

// reduced leaves out the arrows that others imply: without circles there is one
// smallest set that leads everywhere.
func reduced(arrows map[string]map[string]bool) map[string]map[string]bool {
	kept := map[string]map[string]bool{}
	for from, tos := range arrows {
		kept[from] = map[string]bool{}
		for to := range tos {
			implied := false
			for other := range tos {
				implied = implied || other != to && reaches(arrows, other, to)
			}
			if !implied {
				kept[from][to] = true
			}
		}
	}
	return kept
}

func drawFloors(arrows map[string]map[string]bool) string {
	var b strings.Builder
	b.WriteString("```mermaid\nflowchart TD\n")
	for i, f := range floors {
		title := f.name
		if f.about != "" {
			title += ": " + f.about
		}
		fmt.Fprintf(&b, "  subgraph floor%d[\"%s\"]\n", i, title)
		for _, room := range f.rooms {
			fmt.Fprintf(&b, "    %s\n", inMermaid(room))
		}
		b.WriteString("  end\n")
	}
	for _, from := range slices.Sorted(maps.Keys(arrows)) {
		for _, to := range slices.Sorted(maps.Keys(arrows[from])) {
			fmt.Fprintf(&b, "  %s --> %s\n", inMermaid(from), inMermaid(to))
		}
	}
	b.WriteString("```\n")
	return b.String()
}

// inMermaid is a room as Mermaid takes it.
func inMermaid(room string) string { return strings.TrimPrefix(room, "transport/") }

const picture = "../../docs/architecture.md"

func checkPicture(t *testing.T, drawn string) {
	t.Helper()
	const begin, end = "<!-- drawn by TestArchitecture -->\n", "<!-- end of the drawing -->\n"
	raw, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(raw), begin)
	now, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the picture", picture)
	}
	switch {
	case now == drawn:
	case *rewrite:
		if err := os.WriteFile(picture, []byte(before+begin+drawn+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the picture in docs/architecture.md is not what the imports say: " +
			"draw it again with go test ./cmd/plugcast -run TestArchitecture -rewrite")
	}
}
