package conformance

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer/browser"
	"github.com/plugcast/plugcast/transport/testpeer/nodejs"
)

// AppReport is what an application says about what happened to it.
type AppReport struct {
	Kind      string          `json:"kind"`      // open, upgrade, connect, disconnect, connect_error or event
	Transport string          `json:"transport"` // of open and upgrade: polling or websocket
	Reason    string          `json:"reason"`    // of disconnect and connect_error
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Seq       int64           `json:"seq"` // 0 where the event had none
	Position  string          `json:"position"`
}

// AppConfig is what an application of the old system is given.
type AppConfig struct {
	URL    string // of the server, like http://127.0.0.1:4000
	Token  string
	System string // which it joins
}

// waiting is how many reports an application may be ahead of the test: more than
// any test makes events, so that no report is ever waited with.
const waiting = 100_000

// NodeApp runs an application on the unmodified socket.io-client under Node until
// the test is over. Its reports come in order; the channel is closed when it ends.
func NodeApp(t *testing.T, c AppConfig) <-chan AppReport {
	t.Helper()
	return node(t, "main.mjs", c.URL, c.Token, c.System)
}

// NodeAppWith runs an application under Node whose client has the options given. It
// joins the system, and emits binary data after its first event.
func NodeAppWith(t *testing.T, options map[string]any, url, system string) <-chan AppReport {
	t.Helper()
	text, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	return node(t, "options.mjs", url, string(text), system)
}

func node(t *testing.T, program string, args ...string) <-chan AppReport {
	t.Helper()
	dir := nodejs.Folder(t, "testdata", "app")
	nodejs.Install(t, dir)
	cmd := nodejs.Command(t, dir, append([]string{program}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reports := make(chan AppReport, waiting)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(reports)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var report AppReport
			if err := json.Unmarshal(lines.Bytes(), &report); err != nil {
				t.Errorf("the application says %q: %v", lines.Text(), err)
				continue
			}
			reports <- report
		}
		_ = cmd.Wait() // it is interrupted when the test is over
	}()
	t.Cleanup(func() { <-done })
	return reports
}

// PageOrigin serves the application's page, which Browse opens, and is the origin
// from which it reaches the server: one that the server must allow.
type PageOrigin struct {
	URL     string
	Reports <-chan AppReport // in order; it is never closed
}

// ServePage serves the page until the test is over.
func ServePage(t *testing.T) PageOrigin {
	t.Helper()
	dir := nodejs.Folder(t, "testdata", "app")
	nodejs.Install(t, dir)
	reports := make(chan AppReport, waiting)
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServer(http.Dir(dir)))
	mux.HandleFunc("POST /report", func(w http.ResponseWriter, r *http.Request) {
		var report AppReport
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&report); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reports <- report
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return PageOrigin{server.URL, reports}
}

// Browse runs the application in Chromium until the test is over.
func (p PageOrigin) Browse(t *testing.T, c AppConfig) {
	t.Helper()
	browser.Open(t, p.URL+"/?"+url.Values{"url": {c.URL}, "token": {c.Token}, "system": {c.System}}.Encode())
}
