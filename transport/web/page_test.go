package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer/browser"
)

// gateway starts a server of the page's protocol, and sends each connection to sockets.
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

// The page works in a browser that denies it storage, and takes a token from the form.
func TestPageWithoutStorage(t *testing.T) {
	t.Parallel()
	sockets := make(chan *websocket.Conn, 4)
	base := gateway(t, sockets)
	b := browser.Open(t, "about:blank")
	b.Call("Page.enable", nil, nil)
	b.Call("Page.addScriptToEvaluateOnNewDocument", map[string]any{
		"source": "Object.defineProperty(window, 'sessionStorage', {get() { throw new DOMException('denied', 'SecurityError'); }})",
	}, nil)
	b.Call("Page.navigate", map[string]any{"url": base + "/"}, nil)
	b.Shows("document.querySelector('#login')?.hidden", "false")
	b.Eval(`Object.entries({system: "clinica-sol", token: "a.b.c"}).forEach(([name, text]) => {
		document.querySelector("#login [name=" + name + "]").value = text;
	})`)
	b.Eval("document.querySelector('#login button').click()")
	select {
	case conn := <-sockets:
		t.Cleanup(func() { _ = conn.Close() })
	case <-time.After(30 * time.Second):
		t.Fatal("the page does not connect")
	}
	b.Shows("document.querySelector('#login').hidden", "true")
}

// In a real browser, under its own policy, the page shows a snapshot and live events,
// resumes, and asks for a new link when its token expires.
func TestPageInBrowser(t *testing.T) {
	t.Parallel()
	sockets := make(chan *websocket.Conn, 4)
	b := browser.Open(t, gateway(t, sockets)+"/#token=a.b.c&system=clinica-sol")
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
	b.Shows("document.querySelector('#status').textContent", "En vivo")
	b.Shows(card(".relay"), "Encendido")
	b.Shows(card(".equipment"), "Láser")
	b.Shows(card(".power"), "12,5 W")
	b.Shows("location.hash", "#system=clinica-sol") // the page removes the token from the address

	say(t, first, "["+update(2, `{"deviceId":"d1","powerW":3}`)+","+update(3, `{"deviceId":"d1","relayOn":null}`)+"]")
	b.Shows(card(".relay"), "Desconocido")
	b.Shows(card(".power"), "3 W")
	b.Shows("document.querySelector('#plugs li').classList.contains('changed')", "true")
	b.Shows("document.querySelector('#spoken').textContent", "d1: sin datos")
	say(t, first, update(4, `{"deviceId":"d0","name":"<img src=x onerror=document.title=1>","relayOn":false}`))
	b.Shows(card("li:first-child h2"), "<img src=x onerror=document.title=1>")
	b.Shows("document.title", "clinica-sol · plugcast")

	_ = first.Close()
	second := accept(`{"event":"join-system","id":1,"data":{"systemId":"clinica-sol","after":"4-0"}}`, `"position":"4-0","seq":4`)
	say(t, second, update(5, `{"deviceId":"d1","relayOn":true}`))
	b.Shows("document.querySelector('#total-on').textContent", "1")
	b.Shows("document.querySelectorAll('#plugs li').length", "2")

	ended := websocket.FormatCloseMessage(4401, "token-expired")
	if err := second.WriteControl(websocket.CloseMessage, ended, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b.Shows("document.querySelector('#notice').textContent", "El token no es válido o ha caducado. Abra un enlace nuevo.")
	b.Shows("document.querySelector('#login').hidden", "false")
}
