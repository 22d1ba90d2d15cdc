package web

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer/nodejs"
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
		"/web/page.js": "text/javascript; charset=utf-8", "/web/client/index.js": "text/javascript; charset=utf-8",
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
	for _, path := range []string{
		"/web/", "/web/nothing.js", "/web/index.html", "/web/client/", "/web/client/events.ts", "/x", "/web/../handler.go",
	} {
		if resp := get(t, "GET", path); resp.StatusCode != 404 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if resp := get(t, "POST", "/"); resp.StatusCode != 405 {
		t.Errorf("POST: %d", resp.StatusCode)
	}
}

// The page requests nothing from other hosts, and contains nothing that its own policy
// forbids.
func TestPageKeepsToItself(t *testing.T) {
	t.Parallel()
	all := read(assets)
	for name, body := range all {
		for _, forbidden := range []string{
			"//cdn", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "@import url", `@import "`, "document.write",
		} {
			if strings.Contains(body, forbidden) {
				t.Errorf("%s has %s", name, forbidden)
			}
		}
	}
	page := all["/web/index.html"]
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
		if strings.Count(all["/web/words.js"], " "+used[1]+": ") < 2 {
			t.Errorf("not every language has %q", used[1])
		}
	}
}

// The page's words are correct. The test copies the scripts and adds a package.json that
// tells Node that they are modules, as browsers assume.
func TestWords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, part := range []string{"assets", "testdata"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(part)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"type":"module"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := nodejs.Command(t, dir, "--test", "testdata/words.test.mjs").Output(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
