package web

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

func get(t *testing.T, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestPage(t *testing.T) {
	t.Parallel()
	for path, contentType := range map[string]string{
		"/": "text/html; charset=utf-8", "/web/page.css": "text/css; charset=utf-8", "/web/icon.svg": "image/svg+xml",
		"/web/page.js": "text/javascript; charset=utf-8", "/web/link.js": "text/javascript; charset=utf-8",
	} {
		resp := get(t, "GET", path)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != contentType || resp.Header.Get("Content-Security-Policy") != policy {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
		again := get(t, "GET", path, "If-None-Match", resp.Header.Get("ETag"))
		if again.StatusCode != 304 {
			t.Errorf("%s again: %d", path, again.StatusCode)
		}
	}
	for _, path := range []string{"/web/", "/web/nothing.js", "/web/index.html", "/x", "/web/../handler.go"} {
		if resp := get(t, "GET", path); resp.StatusCode != 404 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if resp := get(t, "POST", "/"); resp.StatusCode != 405 {
		t.Errorf("POST: %d", resp.StatusCode)
	}
}

// The page asks no other host for anything, and holds nothing that its own
// policy forbids.
func TestPageKeepsToItself(t *testing.T) {
	t.Parallel()
	all := read(assets)
	for name, body := range all {
		for _, forbidden := range []string{"//cdn", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "@import", "document.write"} {
			if strings.Contains(body, forbidden) {
				t.Errorf("%s has %s", name, forbidden)
			}
		}
	}
	page := all["index.html"]
	for _, pattern := range []string{`<script[^>]*>[^<]`, `<style`, `\son[a-z]+=`, `\sstyle=`} {
		if found := regexp.MustCompile(pattern).FindString(page); found != "" {
			t.Errorf("the page has %s inline", found)
		}
	}
	for _, asset := range regexp.MustCompile(`(?:src|href)="(web/[^"]+)"`).FindAllStringSubmatch(page, -1) {
		if resp := get(t, "GET", "/"+asset[1]); resp.StatusCode != 200 {
			t.Errorf("%s is not there", asset[1])
		}
	}
	for _, used := range regexp.MustCompile(`data-text="(\w+)"`).FindAllStringSubmatch(page, -1) {
		if strings.Count(all["words.js"], " "+used[1]+": ") < 2 {
			t.Errorf("not every language has %q", used[1])
		}
	}
}

// node is a command that runs one of the scripts in testdata with node. It runs
// in a copy that says what browsers know without being told: that the page's
// scripts are modules. Without node the test is skipped.
func node(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	dir := t.TempDir()
	for _, part := range []string{"assets", "testdata"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(part)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"type":"module"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	return cmd
}

// How the page connects, resumes and gives up.
func TestLink(t *testing.T) {
	t.Parallel()
	if out, err := node(t, "--test", "testdata/link.test.mjs").Output(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// folder is a process that folds as the page does.
type folder struct {
	in  io.Writer
	out *bufio.Reader
}

func newFolder(t *testing.T) *folder {
	t.Helper()
	cmd := node(t, "testdata/fold.mjs")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // ended by its input or by the test's context
	})
	return &folder{in: in, out: bufio.NewReader(out)}
}

func (f *folder) fold(t interface{ Fatal(...any) }, snapshot *domain.Snapshot, events []domain.Event) folded {
	line := append(mustJSON(t, map[string]any{"snapshot": snapshot, "events": events}), '\n')
	if _, err := f.in.Write(line); err != nil {
		t.Fatal(err)
	}
	answer, err := f.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var got folded
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// folded is what testdata/fold.mjs writes.
type folded struct {
	Gap         int
	Position    domain.Position
	Seq         uint64
	Devices     []map[string]any
	Equipment   []map[string]any
	Assignments []map[string]any
	Connections []map[string]any
}

// The page and the server make the same state of the same events.
func TestFoldAgrees(t *testing.T) {
	t.Parallel()
	page := newFolder(t)
	rapid.Check(t, func(t *rapid.T) {
		st := domain.NewState("s")
		events := make([]domain.Event, rapid.IntRange(1, 200).Draw(t, "events"))
		from := rapid.IntRange(0, len(events)-1).Draw(t, "the snapshot is taken after")
		var snapshot *domain.Snapshot
		for i := range events {
			events[i] = drawEvent(t, i+1)
			if i == from {
				snapshot = copyOf(t, st.Snapshot())
			}
			if _, err := st.Apply(&events[i]); err != nil {
				t.Fatal(err)
			}
		}
		got := page.fold(t, snapshot, events[max(0, from-2):]) // a few come twice
		want := folded{Gap: -1}
		if err := json.Unmarshal(mustJSON(t, st.Snapshot()), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(known(want), known(got)); diff != "" {
			t.Fatalf("server (-) and page (+) differ: %s", diff)
		}
	})
}

// copyOf is a snapshot that later events do not change.
func copyOf(t interface{ Fatal(...any) }, s *domain.Snapshot) *domain.Snapshot {
	var c domain.Snapshot
	if err := json.Unmarshal(mustJSON(t, s), &c); err != nil {
		t.Fatal(err)
	}
	return &c
}

func TestPageNoticesAGap(t *testing.T) {
	t.Parallel()
	one := domain.Event{Type: domain.TypeDeviceUpdate, SystemID: "s", Seq: 1, Data: []byte(`{"deviceId":"d"}`)}
	three := one
	three.Seq = 3
	got := newFolder(t).fold(t, domain.NewState("s").Snapshot(), []domain.Event{one, one, three})
	if got.Gap != 2 || got.Seq != 1 {
		t.Errorf("a repeated event and then a missing one: %+v", got)
	}
}

// known drops what is null or empty, which the page does not tell from absent,
// and gives times one form.
func known(f folded) folded {
	for _, list := range [][]map[string]any{f.Devices, f.Equipment, f.Assignments, f.Connections} {
		for _, row := range list {
			for key, value := range row {
				if value == nil || value == "" {
					delete(row, key)
				}
				if text, is := value.(string); is {
					if at, err := domain.ParseTime(text); err == nil {
						row[key] = domain.FormatTime(at)
					}
				}
			}
		}
	}
	return f
}

func mustJSON(t interface{ Fatal(...any) }, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var begin = time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)

// drawEvent makes any event about a few devices, pieces of equipment and
// connections.
func drawEvent(t *rapid.T, n int) domain.Event {
	id := func(kind string) string { return fmt.Sprint(kind, rapid.IntRange(1, 3).Draw(t, kind)) }
	// maybe is a field that is absent, null or one of the values.
	maybe := func(name string, values ...any) string {
		switch i := rapid.IntRange(-2, len(values)-1).Draw(t, name); i {
		case -2:
			return ""
		case -1:
			return fmt.Sprintf(`,%q:null`, name)
		default:
			return fmt.Sprintf(`,%q:%s`, name, mustJSON(t, values[i]))
		}
	}
	deviceTime := func() string {
		return maybe("deviceTime", begin.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "device clock"))*time.Millisecond))
	}
	drawn := []struct {
		of   domain.EventType
		data func() string
	}{
		{domain.TypeDeviceUpdate, func() string {
			return `"deviceId":"` + id("d") + `"` + maybe("online", true, false) + maybe("relayOn", true, false) + maybe("powerW", 0, 12.5) +
				maybe("errors", []string{}, []string{"overtemp"}) + maybe("attributes", map[string]any{}, map[string]any{"a": 1}) +
				maybe("name", "Lamp") + maybe("connectionId", "c1", "c2") + deviceTime()
		}},
		{domain.TypeDeviceOfflineStatus, func() string {
			return `"deviceId":"` + id("d") + `","reason":"heartbeat-missed"` + maybe("online", true, false) + maybe("relayOn", true) + maybe("lastSeenAt", begin)
		}},
		{domain.TypeAssignmentUpdated, func() string { return `"deviceId":"` + id("d") + `"` + maybe("equipmentId", "e1", "e2") }},
		{domain.TypeEquipmentRegistered, func() string { return `"equipmentId":"` + id("e") + `","name":"Laser","kind":"laser"` }},
		{domain.TypeEquipmentUpdated, func() string {
			return `"equipmentId":"` + id("e") + `"` + maybe("name", "Láser") + maybe("kind", "lamp") + maybe("location", "room 3") + maybe("attributes", map[string]any{"b": 2})
		}},
		{domain.TypeEquipmentRetired, func() string { return `"equipmentId":"` + id("e") + `"` }},
		{domain.TypeConnectionCreated, func() string { return `"connectionId":"` + id("c") + `","kind":"shelly-cloud"` }},
		{domain.TypeConnectionStopped, func() string { return `"connectionId":"` + id("c") + `"` }},
		{domain.TypeConnectionStarted, func() string { return `"connectionId":"` + id("c") + `"` }},
		{domain.TypeConnectionRestarted, func() string { return `"connectionId":"` + id("c") + `"` }},
		{domain.TypeConnectionStateChanged, func() string {
			return `"connectionId":"` + id("c") + `","state":"disconnected"` + maybe("reason", "timeout")
		}},
		{domain.TypeConnectionDeleted, func() string { return `"connectionId":"` + id("c") + `"` }},
		{"of-tomorrow", func() string { return `"deviceId":"` + id("d") + `"` }},
	}
	one := drawn[rapid.IntRange(0, len(drawn)-1).Draw(t, "type")]
	return domain.Event{
		ID: fmt.Sprint("id-", n), Type: one.of, Version: 1, SystemID: "s", Actor: "maria", Data: json.RawMessage("{" + one.data() + "}"),
		Time: begin.Add(time.Duration(n) * time.Second), Position: domain.Position{Ms: uint64(n)}, Seq: uint64(n),
	}
}
