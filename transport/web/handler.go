// Package web is the live page: the plugs of one system as they change. It is
// three small scripts without a framework or a build step, embedded, and asks no
// other host for anything.
//
// The page takes its token from the URL's fragment, which browsers do not send:
// /#system=clinica-sol&token=….
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed assets
var assets embed.FS

// policy lets the page run its own scripts and talk to its own host, and nothing
// else: not even a script that somebody smuggles into a device's name.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// file is one embedded file, ready to send.
type file struct {
	name string
	body string
	tag  string
}

// Handler serves the page at / and what it consists of below /web/.
func Handler() http.Handler {
	files := map[string]file{}
	for name, body := range read(assets) {
		sum := sha256.Sum256([]byte(body))
		files["/web/"+name] = file{name: name, body: body, tag: `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	files["/"] = files["/web/index.html"]
	delete(files, "/web/index.html")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, found := files[r.URL.Path]
		switch {
		case !found:
			http.NotFound(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "this page can only be read", http.StatusMethodNotAllowed)
		default:
			f.serve(w, r)
		}
	})
}

// serve answers with the file, or with 304 when the browser has it. The browser
// asks each time, so that a new version of the program brings its own page.
func (f file) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", f.tag)
	header.Set("Content-Type", contentTypes[path.Ext(f.name)])
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.body))
}

// contentTypes does not ask the machine, whose table may say otherwise.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func read(from fs.FS) map[string]string {
	found := map[string]string{}
	err := fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := fs.ReadFile(from, name)
		found[path.Base(name)] = string(body)
		return err
	})
	if err != nil {
		panic("web: embedded files: " + err.Error()) // only a broken build can get here
	}
	return found
}
