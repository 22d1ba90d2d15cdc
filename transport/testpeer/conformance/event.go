package conformance

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

var eventChecks = []check{
	{name: "answers an event", run: answersWith(`42["message",1,"2",{"3":[true]}]`, `42["message-back",1,"2",{"3":[true]}]`)},
	{name: "answers an event without arguments", run: answersWith(`42["message"]`, `42["message-back"]`)},
	{name: "keeps every kind of argument", run: answersWith(
		`42["message",null,true,-1.5,"é€😀\u2028",[],{},[[{"a":{"b":[0]}}]]]`,
		`42["message-back",null,true,-1.5,"é€😀`+"\u2028"+`",[],{},[[{"a":{"b":[0]}}]]]`)},
	{name: "keeps markup as it is", run: answersWith(`42["message","<b>&amp;</b>"]`, `42["message-back","<b>&amp;</b>"]`)},
	{name: "takes an argument that looks like a namespace for what it is",
		run: answersWith(`42["message","/custom,1[]"]`, `42["message-back","/custom,1[]"]`)},
	{name: "takes a placeholder in an event without bytes for what it is",
		run: answersWith(`42["message",{"_placeholder":true,"num":0}]`, `42["message-back",{"_placeholder":true,"num":0}]`)},
	{name: "allows white space in the JSON", run: answersWith("42[ \"message\" ,\n\t{ \"a\" : 1 } ]", `42["message-back",{"a":1}]`)},
	{name: "answers an event in the namespace it came from", run: answersInNamespace},
	{name: "acknowledges an event", run: answersWith(`42456["message-with-ack",1,"2",{"3":[false]}]`, `43456[1,"2",{"3":[false]}]`)},
	{name: "acknowledges an event without arguments", run: answersWith(`421["message-with-ack"]`, `431[]`)},
	{name: "acknowledges the number zero", run: answersWith(`420["message-with-ack"]`, `430[]`)},
	{name: "acknowledges the largest whole number of JavaScript",
		run: answersWith(`429007199254740991["message-with-ack"]`, `439007199254740991[]`)},
	{name: "acknowledges in the namespace", run: acknowledgesInNamespace},
	{name: "takes an acknowledgement", run: takesAck},
	{name: "takes an acknowledgement in the namespace", run: takesAckInNamespace},
	{name: "takes an acknowledgement once", run: takesAckOnce},
	{name: "takes no notice of an acknowledgement nobody asked for", run: ignores("437[1]")},
	{name: "takes no notice of an acknowledgement without a number", run: ignores("43[1]")},
	{name: "takes no notice of an event nobody handles", run: ignores(`42["unheard-of",1]`, `427["unheard-of",1]`)},
	{name: "takes no notice of an event named like a property of objects", run: ignores(`42["__proto__",1]`, `42["constructor",1]`)},
	{name: "takes no notice of an event whose name is a number", run: ignores("42[1]", `42[-1.5,"a"]`)},
	{name: "keeps the order of events", run: keepsEventOrder},
}

var socketPollingChecks = []check{
	{name: "does it all by polling too", run: doesAllByPolling},
	{name: "keeps namespaces through an upgrade", run: keepsNamespaces},
	{name: "ends a polling session on a bad packet", run: endsPollingOnBadPacket},
}

func answersWith(packet string, want ...string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w := at.joined(t)
		send(t, w, packet)
		at.gets(t, w, want...)
	}
}

// ignores is a check that packets have no effect, and no answer.
func ignores(packets ...string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w := at.joined(t)
		send(t, w, packets...)
		at.answers(t, w, "/")
	}
}

func answersInNamespace(t *testing.T, at endpoint) {
	w := at.joined(t)
	at.join(t, w, "/custom")
	send(t, w, `42/custom,["message","a"]`, `42["message","b"]`)
	at.gets(t, w, `42/custom,["message-back","a"]`, `42["message-back","b"]`)
}

func acknowledgesInNamespace(t *testing.T, at endpoint) {
	w := at.joined(t)
	at.join(t, w, "/custom")
	send(t, w, `42/custom,7["message-with-ack","a"]`, `427["message-with-ack","b"]`)
	at.gets(t, w, `43/custom,7["a"]`, `437["b"]`)
}

// question reads the server's question and returns the number it wants to see in
// the acknowledgement.
func (at endpoint) question(t *testing.T, w *WebSocket, prefix, arguments string) string {
	t.Helper()
	frame, err := w.Next(at.ctx)
	if err != nil {
		t.Fatal(err)
	}
	id, rest := "", strings.TrimPrefix(frame.Data, prefix)
	if bracket := strings.IndexByte(rest, '['); bracket >= 0 {
		id, rest = rest[:bracket], rest[bracket:]
	}
	if rest != `["question"`+arguments+"]" || id == "" || strings.Trim(id, "0123456789") != "" {
		t.Fatalf("got %q, want a question with a number", frame.Data)
	}
	return id
}

func takesAck(t *testing.T, at endpoint) {
	w := at.joined(t)
	send(t, w, `42["ask","why?"]`)
	id := at.question(t, w, "42", `,"why?"`)
	send(t, w, "43"+id+`["because",{"a":1}]`)
	at.gets(t, w, `42["answered","because",{"a":1}]`)
}

func takesAckInNamespace(t *testing.T, at endpoint) {
	w := at.joined(t)
	at.join(t, w, "/custom")
	send(t, w, `42/custom,["ask"]`)
	id := at.question(t, w, "42/custom,", "")
	send(t, w, "43/custom,"+id+"[]")
	at.gets(t, w, `42/custom,["answered"]`)
}

func takesAckOnce(t *testing.T, at endpoint) {
	w := at.joined(t)
	send(t, w, `42["ask"]`)
	id := at.question(t, w, "42", "")
	send(t, w, "43"+id+"[1]", "43"+id+"[2]")
	at.gets(t, w, `42["answered",1]`)
	at.answers(t, w, "/")
}

func keepsEventOrder(t *testing.T, at endpoint) {
	w := at.joined(t)
	for range 20 {
		send(t, w, `42["message",1]`, `451-["message",{"_placeholder":true,"num":0}]`)
		sendBinary(t, w, "bytes")
		send(t, w, `421["message-with-ack"]`)
	}
	for range 20 {
		at.gets(t, w, `42["message-back",1]`, `451-["message-back",{"_placeholder":true,"num":0}]`)
		at.getsFrames(t, w, Frame{true, "bytes"})
		at.gets(t, w, "431[]")
	}
}

// joinByPolling joins the main namespace.
func (at endpoint) joinByPolling(t *testing.T, p *Polling) {
	t.Helper()
	at.post(t, p, "40")
	packet, err := p.Next(at.ctx)
	if err != nil {
		t.Fatal(err)
	}
	checkConnected(t, packet, "40")
	at.polls(t, p, `42["auth",{}]`)
}

func doesAllByPolling(t *testing.T, at endpoint) {
	p := at.polling(t)
	at.joinByPolling(t, p)
	at.post(t, p, `42["message","hello"]`, `427["message-with-ack"]`)
	at.polls(t, p, `42["message-back","hello"]`, "437[]")
	bytes := "b" + base64.StdEncoding.EncodeToString([]byte("bytes"))
	at.post(t, p, `451-["message",{"_placeholder":true,"num":0}]`, bytes)
	at.polls(t, p, `451-["message-back",{"_placeholder":true,"num":0}]`, bytes)
	at.post(t, p, `451-["message",{"_placeholder":true,"num":0}]`) // and its bytes in another request
	at.post(t, p, bytes)
	at.polls(t, p, `451-["message-back",{"_placeholder":true,"num":0}]`, bytes)
	at.post(t, p, "41", "40/random")
	at.polls(t, p, `44/random,{"message":"Invalid namespace"}`)
}

func keepsNamespaces(t *testing.T, at endpoint) {
	p := at.polling(t)
	at.joinByPolling(t, p)
	w := at.upgrade(t, p)
	at.answers(t, w, "/")
	at.join(t, w, "/custom")
	at.answers(t, w, "/custom")
}

func endsPollingOnBadPacket(t *testing.T, at endpoint) {
	p := at.polling(t)
	at.joinByPolling(t, p)
	_, _ = p.Post(at.ctx, "4abc") // may be cut
	answer, err := p.Get(at.ctx)
	if packets := answer.Packets(); err == nil && answer.Status == http.StatusOK && packets[len(packets)-1] != "1" {
		t.Errorf("polled %q, want the session closed", answer.Body)
	}
	at.forgets(t, p)
}
