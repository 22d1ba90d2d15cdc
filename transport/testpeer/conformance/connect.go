package conformance

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

var connectChecks = []check{
	{name: "lets a client join the main namespace", run: joins("40", "40", `42["auth",{}]`)},
	{name: "gives the namespace what the client says of itself",
		run: joins(`40{"token":"123"}`, "40", `42["auth",{"token":"123"}]`)},
	{name: "lets a client join another namespace", run: joins("40/custom,", "40/custom,", `42/custom,["auth",{}]`)},
	{name: "needs no comma behind a namespace where nothing follows", run: joins("40/custom", "40/custom,", `42/custom,["auth",{}]`)},
	{name: "gives another namespace what the client says of itself",
		run: joins(`40/custom,{"token":"abc","more":{"a":[1]}}`, "40/custom,", `42/custom,["auth",{"token":"abc","more":{"a":[1]}}]`)},
	{name: "lets a client be in several namespaces at once", run: joinsSeveral},
	{name: "refuses a namespace it does not have, and keeps the connection", run: refusesNamespace("/random")},
	{name: "refuses a namespace with an empty name", run: refusesNamespace("/custom/")},
	{name: "refuses a namespace named like a property of objects", run: refusesNamespace("/__proto__")},
	{name: "closes on a second CONNECT to the same namespace", run: closesJoined("40")},
	{name: "closes on an event before CONNECT", run: closesFresh(`42["message"]`)},
	{name: "closes on a binary event before CONNECT", run: closesFresh(`451-["message",{"_placeholder":true,"num":0}]`, "\x01")},
	{name: "closes on an acknowledgement before CONNECT", run: closesFresh("431[]")},
	{name: "closes on a DISCONNECT before CONNECT", run: closesFresh("41")},
	{name: "closes on a client's CONNECT_ERROR", run: closesFresh(`44{"message":"no"}`)},
	{name: "closes on a client's CONNECT_ERROR when it is joined", run: closesJoined(`44{"message":"no"}`)},
	{name: "closes on a CONNECT that is no JSON", run: closesFresh("40{token}")},
	{name: "closes on a CONNECT with a list", run: closesFresh("40[]")},
	{name: "closes on a CONNECT with a string", run: closesFresh(`40"token"`)},
	{name: "closes on a CONNECT with null", run: closesFresh("40null")},
	{name: "closes on a packet that is none before CONNECT", run: closesFresh("4abc")},
	{name: "closes on an event to a namespace that is not joined", run: closesJoined(`42/custom,["message"]`)},
	{name: "names its sockets other than their connection", run: namesSockets},
}

var connectTimeoutChecks = []check{
	{name: "closes on a client that joins no namespace in time", run: closesIdle},
	{name: "closes on a client that is only refused in time", run: closesRefused},
	{name: "keeps a client that has joined in time", run: keepsJoined},
}

var disconnectChecks = []check{
	{name: "keeps the connection of who leaves the main namespace", run: keepsConnection},
	{name: "lets a client come back to a namespace it left", run: letsComeBack},
	{name: "keeps a client in the main namespace when it leaves another", run: leavesOther},
	{name: "keeps a client in another namespace when it leaves the main one", run: leavesMain},
	{name: "closes on an event to a namespace the client left", run: closesOnEventAfterLeave},
	{name: "closes on a DISCONNECT with a payload", run: closesJoined("41{}")},
}

// joined is a WebSocket whose client is in the main namespace.
func (at endpoint) joined(t *testing.T) *WebSocket {
	t.Helper()
	w := at.webSocket(t)
	at.join(t, w, "/")
	return w
}

// join joins a namespace and returns the socket's id.
func (at endpoint) join(t *testing.T, w *WebSocket, namespace string) string {
	t.Helper()
	sid, err := w.Connect(at.ctx, namespace, "")
	if err != nil {
		t.Fatal(err)
	}
	if sid == "" {
		t.Fatal("the socket has no id")
	}
	if namespace == "/" {
		at.gets(t, w, `42["auth",{}]`)
	} else {
		at.gets(t, w, "42"+namespace+`,["auth",{}]`)
	}
	return sid
}

// answers fails unless the namespace answers a message: the client is still in it.
func (at endpoint) answers(t *testing.T, w *WebSocket, namespace string) {
	t.Helper()
	prefix := "42"
	if namespace != "/" {
		prefix += namespace + ","
	}
	send(t, w, prefix+`["message","are you there?"]`)
	at.gets(t, w, prefix+`["message-back","are you there?"]`)
}

func joins(packet, prefix, auth string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w := at.webSocket(t)
		send(t, w, packet)
		frame, err := w.Next(at.ctx)
		if err != nil {
			t.Fatal(err)
		}
		checkConnected(t, frame.Data, prefix)
		at.gets(t, w, auth)
	}
}

// checkConnected holds the answer to a CONNECT against the protocol: an id, and
// nothing else without recovery.
func checkConnected(t *testing.T, packet, prefix string) {
	t.Helper()
	text, ok := strings.CutPrefix(packet, prefix)
	if !ok {
		t.Fatalf("got %q, want %s…", packet, prefix)
	}
	var keys map[string]string
	if err := json.Unmarshal([]byte(text), &keys); err != nil {
		t.Fatal(err)
	}
	if len(keys) != 1 || keys["sid"] == "" {
		t.Errorf("the answer is %s, want a sid alone", text)
	}
}

func joinsSeveral(t *testing.T, at endpoint) {
	w := at.joined(t)
	at.join(t, w, "/custom")
	at.answers(t, w, "/")
	at.answers(t, w, "/custom")
}

func refusesNamespace(name string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w := at.webSocket(t)
		for _, packet := range []string{"40" + name, "40" + name + ",", "40" + name + `,{"token":"123"}`} {
			send(t, w, packet)
			at.gets(t, w, "44"+name+`,{"message":"Invalid namespace"}`)
		}
		at.join(t, w, "/")
		at.answers(t, w, "/")
	}
}

// closesFresh is a check that a packet, with its attachments, closes a connection
// without a namespace.
func closesFresh(packet string, attachments ...string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w := at.webSocket(t)
		send(t, w, packet)
		for _, attachment := range attachments {
			_ = w.SendBinary([]byte(attachment)) // may be closed before
		}
		at.closes(t, w)
	}
}

// closesJoined is a check that a packet, with its attachments, closes a connection
// that has joined the main namespace.
func closesJoined(packet string, attachments ...string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w := at.joined(t)
		send(t, w, packet)
		for _, attachment := range attachments {
			_ = w.SendBinary([]byte(attachment)) // may be closed before
		}
		at.closes(t, w)
	}
}

func namesSockets(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	main, custom := at.join(t, w, "/"), at.join(t, w, "/custom")
	if main == w.Open.SID || custom == w.Open.SID {
		t.Error("a socket has the name of its connection, which only its client may know")
	}
	if main == custom {
		t.Errorf("both sockets are %q", main)
	}
}

func closesIdle(t *testing.T, at endpoint) { at.closes(t, at.webSocket(t)) }

func closesRefused(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	send(t, w, "40/random")
	at.gets(t, w, `44/random,{"message":"Invalid namespace"}`)
	at.closes(t, w)
}

// Its neighbour, which joined nothing, is closed, and it is not.
func keepsJoined(t *testing.T, at endpoint) {
	w, neighbour := at.joined(t), at.webSocket(t)
	closed := make(chan error, 1)
	go func() {
		_, err := neighbour.Next(at.ctx)
		closed <- err
	}()
	for {
		at.answers(t, w, "/")
		select {
		case err := <-closed:
			if !errors.Is(err, ErrClosed) {
				t.Fatal(err)
			}
			at.answers(t, w, "/")
			return
		default:
		}
	}
}

func keepsConnection(t *testing.T, at endpoint) {
	w := at.joined(t)
	send(t, w, "41", "40/random")
	at.gets(t, w, `44/random,{"message":"Invalid namespace"}`)
}

func letsComeBack(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	seen := map[string]bool{}
	for range 3 {
		for _, namespace := range []string{"/", "/custom"} {
			sid := at.join(t, w, namespace)
			if seen[sid] {
				t.Errorf("the name %q was given twice", sid)
			}
			seen[sid] = true
			at.answers(t, w, namespace)
		}
		send(t, w, "41", "41/custom")
		send(t, w, "40/random") // its answer says that both are left
		at.gets(t, w, `44/random,{"message":"Invalid namespace"}`)
	}
}

func leavesOther(t *testing.T, at endpoint) {
	w := at.joined(t)
	at.join(t, w, "/custom")
	send(t, w, "41/custom,")
	at.answers(t, w, "/")
}

func leavesMain(t *testing.T, at endpoint) {
	w := at.joined(t)
	at.join(t, w, "/custom")
	send(t, w, "41")
	at.answers(t, w, "/custom")
}

func closesOnEventAfterLeave(t *testing.T, at endpoint) {
	w := at.joined(t)
	send(t, w, "41", "40/random")
	at.gets(t, w, `44/random,{"message":"Invalid namespace"}`)
	send(t, w, `42["message"]`)
	at.closes(t, w)
}
