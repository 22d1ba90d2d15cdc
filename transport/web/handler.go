// Package web serves the live page, which shows the plugs of one system as they change.
// The page is a few small embedded scripts without a framework or a build step, and
// requests nothing from other hosts. It connects through the JavaScript client. The
// package serves the client's sources in client/src unchanged, for other pages too.
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

//go:embed assets client/src/*.js
var assets embed.FS

// folders maps folders of the embedded files to the paths at which they are served. The
// client's React part, in a folder below, is not embedded: pages with React have a
// bundler.
var folders = []struct{ from, at string }{
	{"assets", "/web/"},
	{"client/src", "/web/client/"},
}

// policy allows the page only its own scripts and requests to its own host. It blocks,
// for example, a script that an attacker hides in a device's name.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// file is one embedded file, ready to send.
type file struct {
	name string
	body string
	tag  string
}

// Handler serves the page at / and its files below /web/. It serves the client at
// /web/client/index.js, from where pages of other origins can import it.
func Handler() http.Handler {
	files := map[string]file{}
	for at, body := range read(assets) {
		sum := sha256.Sum256([]byte(body))
		files[at] = file{name: at, body: body, tag: `"` + hex.EncodeToString(sum[:8]) + `"`}
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
			http.Error(w, "this page supports only GET and HEAD", http.StatusMethodNotAllowed)
		default:
			f.serve(w, r)
		}
	})
}

// serve answers with the file, or with 304 if the browser has it. The browser asks each
// time, so that it gets the new page of a new version of the program at once.
func (f file) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	if strings.HasPrefix(f.name, "/web/client/") {
		header.Set("Access-Control-Allow-Origin", "*")
	}
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", f.tag)
	header.Set("Content-Type", contentTypes[path.Ext(f.name)])
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.body))
}

// contentTypes is fixed, because the table of the machine may differ.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// read returns the contents of all files by the paths at which they are served.
func read(from fs.FS) map[string]string {
	found := map[string]string{}
	for _, folder := range folders {
		entries, err := fs.ReadDir(from, folder.from)
		if err != nil {
			panic("web: embedded files: " + err.Error()) // only a broken build gets here
		}
		for _, entry := range entries {
			body, err := fs.ReadFile(from, path.Join(folder.from, entry.Name()))
			if err != nil {
				panic("web: embedded files: " + err.Error())
			}
			found[folder.at+entry.Name()] = string(body)
		}
	}
	return found
}
