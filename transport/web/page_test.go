package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/nodetest"
)

// browser is a real one, with the page open, driven through its debugger.
type browser struct {
	t     *testing.T
	debug *websocket.Conn
	calls int
}

func openBrowser(t *testing.T, url string) *browser {
	t.Helper()
	path := nodetest.Chromium(t)
	profile := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
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
	eventually(t, "the debugger's port", func() bool {
		text, _ := os.ReadFile(filepath.Join(profile, "DevToolsActivePort"))
		port, _, _ = strings.Cut(string(text), "\n")
		return port != ""
	})
	b := &browser{t: t}
	eventually(t, "the page's debugger", func() bool { return b.attach("http://127.0.0.1:" + port + "/json") })
	t.Cleanup(func() { _ = b.debug.Close() })
	return b
}

func (b *browser) attach(list string) bool {
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

// eval is the value of an expression in the page, as text.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	b.calls++
	err := b.debug.WriteJSON(map[string]any{
		"id": b.calls, "method": "Runtime.evaluate", "params": map[string]any{"expression": "String(" + expression + ")"},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	var answer struct {
		ID     int
		Result struct{ Result struct{ Value string } }
	}
	for answer.ID != b.calls {
		if err := b.debug.ReadJSON(&answer); err != nil {
			b.t.Fatal(err)
		}
	}
	return answer.Result.Result.Value
}

// shows waits until an expression has the value.
func (b *browser) shows(expression, want string) {
	b.t.Helper()
	got := ""
	deadline := time.Now().Add(30 * time.Second)
	for got = b.eval(expression); got != want && time.Now().Before(deadline); got = b.eval(expression) {
	}
	if got != want {
		b.t.Fatalf("%s is %q, want %q", expression, got, want)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatal(what + ": not within 30 s")
		}
		<-time.After(10 * time.Millisecond) // the browser needs the processor too
	}
}

// gateway is a server of the page's protocol that says what a test tells it to.
func gateway(t *testing.T, sockets chan<- *websocket.Conn) string {
	upgrader := websocket.Upgrader{Subprotocols: []string{"plugcast.v1"}}
	mux := http.NewServeMux()
	mux.Handle("/", Handler())
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		if offered := websocket.Subprotocols(r); len(offered) != 2 || offered[1] != "bearer.a.b.c" || r.URL.RawQuery != "" {
			t.Errorf("the page offers %v at %s", offered, r.URL)
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		sockets <- conn
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

func say(t *testing.T, conn *websocket.Conn, frame string) {
	t.Helper()
	if err := conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		t.Fatal(err)
	}
}

func update(seq int, data string) string {
	e := domain.Event{
		Type: domain.TypeDeviceUpdate, Version: 1, SystemID: "clinica-sol", Time: time.Now(),
		Position: domain.Position{Ms: uint64(seq)}, Seq: uint64(seq), Data: json.RawMessage(data),
	}
	return string(e.AppendEnvelope(nil))
}

// The page in a real browser, under its own policy: what it shows of a snapshot
// and of live events, that it resumes, and that it ends when it is told to.
func TestPageInBrowser(t *testing.T) {
	t.Parallel()
	sockets := make(chan *websocket.Conn, 4)
	b := openBrowser(t, gateway(t, sockets)+"/#token=a.b.c&system=clinica-sol")
	accept := func(join, place string) *websocket.Conn {
		var conn *websocket.Conn
		select {
		case conn = <-sockets:
		case <-time.After(30 * time.Second):
			t.Fatal("the page does not connect")
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, got, err := conn.ReadMessage(); err != nil || string(got) != join {
			t.Fatalf("the page says %s, %v; want %s", got, err, join)
		}
		say(t, conn, `{"event":"joined","id":1,"data":{"systemId":"clinica-sol",`+place+`,"recovered":true}}`)
		return conn
	}
	first := accept(`{"event":"join-system","id":1,"data":{"systemId":"clinica-sol","snapshot":true}}`, `"position":"1-0","seq":1`)
	say(t, first, `{"event":"snapshot","data":{"systemId":"clinica-sol","position":"1-0","seq":1,"connections":[],`+
		`"devices":[{"deviceId":"d1","online":true,"relayOn":true,"powerW":12.5,"updatedAt":"2026-11-23T18:00:00Z","position":"1-0"}],`+
		`"equipment":[{"equipmentId":"e1","name":"Láser"}],"assignments":[{"deviceId":"d1","equipmentId":"e1"}]}}`)
	card := func(selector string) string {
		return fmt.Sprintf("document.querySelector('#plugs %s')?.textContent", selector)
	}
	b.shows("document.querySelector('#status').textContent", "En vivo")
	b.shows(card(".relay"), "Encendido")
	b.shows(card(".equipment"), "Láser")
	b.shows(card(".power"), "12,5 W")
	b.shows("location.hash", "#system=clinica-sol") // the token is not left in the address

	say(t, first, "["+update(2, `{"deviceId":"d1","powerW":3}`)+","+update(3, `{"deviceId":"d1","relayOn":null}`)+"]")
	b.shows(card(".relay"), "Desconocido")
	b.shows(card(".power"), "3 W")
	b.shows("document.querySelector('#plugs li').classList.contains('changed')", "true")
	b.shows("document.querySelector('#spoken').textContent", "d1: sin datos")
	say(t, first, update(4, `{"deviceId":"d0","name":"<img src=x onerror=document.title=1>","relayOn":false}`))
	b.shows(card("li:first-child h2"), "<img src=x onerror=document.title=1>")
	b.shows("document.title", "clinica-sol · plugcast")

	_ = first.Close()
	second := accept(`{"event":"join-system","id":1,"data":{"systemId":"clinica-sol","after":"4-0"}}`, `"position":"4-0","seq":4`)
	say(t, second, update(5, `{"deviceId":"d1","relayOn":true}`))
	b.shows("document.querySelector('#total-on').textContent", "1")
	b.shows("document.querySelectorAll('#plugs li').length", "2")

	ended := websocket.FormatCloseMessage(4401, "token-expired")
	if err := second.WriteControl(websocket.CloseMessage, ended, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b.shows("document.querySelector('#notice').textContent", "El token no es válido o ha caducado. Abra un enlace nuevo.")
	b.shows("document.querySelector('#login').hidden", "false")
}
