// Package browser drives Chromium through its debugger, for tests of pages.
package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/transport/testpeer"
)

// Browser is a real one, with a page open, driven through its debugger. It is for
// one goroutine at a time.
type Browser struct {
	t     testing.TB
	debug *websocket.Conn
	calls int
}

// Open starts Chromium in Spanish with a page open. It ends with the test.
func Open(t testing.TB, url string) *Browser {
	t.Helper()
	profile := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path(t), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
		"--lang=es-ES", "--accept-lang=es-ES", "--remote-debugging-port=0", "--user-data-dir="+profile, url)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was interrupted
	})
	var port string
	testpeer.Eventually(t, "the debugger's port", func() bool {
		text, _ := os.ReadFile(filepath.Join(profile, "DevToolsActivePort"))
		port, _, _ = strings.Cut(string(text), "\n")
		return port != ""
	})
	b := &Browser{t: t}
	testpeer.Eventually(t, "the page's debugger", func() bool { return b.attach("http://127.0.0.1:" + port + "/json") })
	t.Cleanup(func() { _ = b.debug.Close() })
	return b
}

func (b *Browser) attach(list string) bool {
	resp, err := http.Get(list)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var targets []struct{ Type, WebSocketDebuggerURL string }
	if json.NewDecoder(resp.Body).Decode(&targets) != nil {
		return false
	}
	for _, target := range targets {
		if target.Type == "page" {
			b.debug, _, err = websocket.DefaultDialer.Dial(target.WebSocketDebuggerURL, nil)
			return err == nil
		}
	}
	return false
}

// Call calls a method of the debugger's protocol, and reads the answer into
// result unless that is nil.
func (b *Browser) Call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.calls++
	if err := b.debug.WriteJSON(map[string]any{"id": b.calls, "method": method, "params": params}); err != nil {
		b.t.Fatal(err)
	}
	var answer struct {
		ID     int
		Result json.RawMessage
		Error  struct{ Message string }
	}
	for answer.ID != b.calls { // events come in between
		if err := b.debug.ReadJSON(&answer); err != nil {
			b.t.Fatal(err)
		}
	}
	if answer.Error.Message != "" {
		b.t.Fatalf("%s: %s", method, answer.Error.Message)
	}
	if result != nil {
		if err := json.Unmarshal(answer.Result, result); err != nil {
			b.t.Fatal(err)
		}
	}
}

// Eval is the value of an expression in the page, as text. A promise is waited
// for. A fault is the text of it.
func (b *Browser) Eval(expression string) string {
	b.t.Helper()
	var answer struct {
		Result           struct{ Value string }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	b.Call("Runtime.evaluate", map[string]any{
		"expression":   "(async () => String(await (" + expression + ")))()",
		"awaitPromise": true, "includeCommandLineAPI": true,
	}, &answer)
	if answer.ExceptionDetails != nil {
		return answer.ExceptionDetails.Exception.Description
	}
	return answer.Result.Value
}

// Shows waits until an expression has the value.
func (b *Browser) Shows(expression, want string) {
	b.t.Helper()
	var got string
	testpeer.Eventually(b.t, fmt.Sprintf("%s to be %q", expression, want), func() bool {
		got = b.Eval(expression)
		return got == want
	}, func() string { return fmt.Sprintf("it is %q", got) })
}

// path is where Chromium is installed. The test is skipped where there is none,
// which is so on Ubuntu, whose package is a snap.
func path(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("Chromium is not installed")
	return ""
}
