package conformance

import (
	"fmt"
	"strings"
	"testing"
)

const (
	placeholder0 = `{"_placeholder":true,"num":0}`
	placeholder1 = `{"_placeholder":true,"num":1}`
)

var binaryChecks = []check{
	{name: "answers an event with bytes", run: answersBytes(
		`452-["message",`+placeholder0+`,`+placeholder1+`]`,
		`452-["message-back",`+placeholder0+`,`+placeholder1+`]`, "\x01\x02\x03", "\x04\x05\x06")},
	{name: "finds bytes deep in the arguments", run: answersBytes(
		`452-["message",{"a":[`+placeholder0+`,"b"],"c":{"d":`+placeholder1+`}},1]`,
		`452-["message-back",{"a":[`+placeholder0+`,"b"],"c":{"d":`+placeholder1+`}},1]`, "one", "two")},
	{name: "takes empty bytes", run: answersBytes(
		`451-["message",`+placeholder0+`]`, `451-["message-back",`+placeholder0+`]`, "")},
	{name: "takes bytes that look like a packet for what they are", run: answersBytes(
		`451-["message",`+placeholder0+`]`, `451-["message-back",`+placeholder0+`]`, `42["message"]`)},
	{name: "acknowledges with bytes", run: answersBytes(
		`452-789["message-with-ack",`+placeholder0+`,`+placeholder1+`]`,
		`462-789[`+placeholder0+`,`+placeholder1+`]`, "\x01\x02\x03", "\x04\x05\x06")},
	{name: "answers bytes in the namespace", run: answersBytesInNamespace},
	{name: "takes an acknowledgement with bytes", run: takesAckWithBytes},
	{name: "takes no notice of bytes that acknowledge nothing", run: ignoresBinaryAck},
	{name: "closes on an event that announces no bytes", run: closesJoined(`450-["message","a"]`)},
	{name: "allows a pong among the bytes", run: allowsPong},
	{name: "allows ten attachments", run: answersBytes(
		"4510-"+`["message"`+placeholders(10)+`]`, "4510-"+`["message-back"`+placeholders(10)+`]`,
		strings.Split("0123456789", "")...)},
	{name: "closes on more attachments than it allows", run: closesJoined("4511-" + `["message"` + placeholders(11) + `]`)},
	{name: "closes on a huge number of attachments", run: closesJoined("4599999999999999999999-" + `["message"]`)},
	{name: "closes on a number of attachments that is none", run: closesJoined("45x-" + `["message"]`)},
	{name: "closes on a negative number of attachments", run: closesJoined(`45-1-["message"]`)},
	{name: "closes on a fraction of attachments", run: closesJoined(`451.5-["message",` + placeholder0 + `]`)},
	{name: "closes on attachments in another notation", run: closesJoined(`451e0-["message",` + placeholder0 + `]`),
		stricter: "the original reads the number as JavaScript does"},
	{name: "closes on bytes without a number", run: closesJoined(`45-["message"]`)},
	{name: "closes on a number without a dash", run: closesJoined(`451["message",` + placeholder0 + `]`)},
	{name: "closes on a number alone", run: closesJoined("451")},
	{name: "closes on a placeholder past the last", run: closesJoined(`451-["message",`+placeholder1+`]`, "a")},
	{name: "closes on a placeholder far past the last",
		run: closesJoined(`451-["message",{"_placeholder":true,"num":1e300}]`, "a")},
	{name: "closes on a negative placeholder", run: closesJoined(`451-["message",{"_placeholder":true,"num":-1}]`, "a")},
	{name: "closes on a placeholder without a number", run: closesJoined(`451-["message",{"_placeholder":true}]`, "a")},
	{name: "closes on a placeholder whose number is a string",
		run: closesJoined(`451-["message",{"_placeholder":true,"num":"0"}]`, "a")},
	{name: "closes on a placeholder whose number is a fraction",
		run:      closesJoined(`451-["message",{"_placeholder":true,"num":0.5}]`, "a"),
		stricter: "the original puts nothing in its place"},
	{name: "closes on a bad placeholder deep in the arguments",
		run: closesJoined(`451-["message",[{"a":[`+placeholder1+`]}]]`, "a")},
	{name: "closes on bytes nobody announced", run: closesOnStrayBytes},
	{name: "closes on bytes past the announced ones", run: closesOnExtraBytes},
	{name: "closes on an event among the bytes", run: closesAmongBytes(`42["message"]`)},
	{name: "closes on another namespace's packet among the bytes", run: closesAmongBytes("40/custom")},
	{name: "closes on an announcement among the bytes", run: closesAmongBytes(`451-["message",` + placeholder0 + `]`)},
	{name: "closes on a DISCONNECT among the bytes", run: closesAmongBytes("41")},
}

// placeholders are n of them, each behind a comma.
func placeholders(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,{"_placeholder":true,"num":%d}`, i)
	}
	return b.String()
}

func answersBytes(packet, want string, attachments ...string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w := at.joined(t)
		send(t, w, packet)
		sendBinary(t, w, attachments...)
		at.gets(t, w, want)
		for _, attachment := range attachments {
			at.getsFrames(t, w, Frame{true, attachment})
		}
	}
}

func answersBytesInNamespace(t *testing.T, at endpoint) {
	w := at.joined(t)
	at.join(t, w, "/custom")
	send(t, w, `451-/custom,5["message-with-ack",`+placeholder0+`]`)
	sendBinary(t, w, "a")
	at.gets(t, w, `461-/custom,5[`+placeholder0+`]`)
	at.getsFrames(t, w, Frame{true, "a"})
}

func takesAckWithBytes(t *testing.T, at endpoint) {
	w := at.joined(t)
	send(t, w, `451-["ask",`+placeholder0+`]`)
	sendBinary(t, w, "why?")
	id := at.question(t, w, "451-", ","+placeholder0)
	at.getsFrames(t, w, Frame{true, "why?"})
	send(t, w, "461-"+id+`[`+placeholder0+`]`)
	sendBinary(t, w, "because")
	at.gets(t, w, `451-["answered",`+placeholder0+`]`)
	at.getsFrames(t, w, Frame{true, "because"})
}

func ignoresBinaryAck(t *testing.T, at endpoint) {
	w := at.joined(t)
	send(t, w, `461-7[`+placeholder0+`]`)
	sendBinary(t, w, "a")
	at.answers(t, w, "/")
}

// Engine.IO's own packets know nothing of what a message is part of.
func allowsPong(t *testing.T, at endpoint) {
	w := at.joined(t)
	send(t, w, `452-["message",`+placeholder0+`,`+placeholder1+`]`)
	sendBinary(t, w, "a")
	send(t, w, "3", "6")
	sendBinary(t, w, "b")
	at.gets(t, w, `452-["message-back",`+placeholder0+`,`+placeholder1+`]`)
	at.getsFrames(t, w, Frame{true, "a"}, Frame{true, "b"})
}

func closesOnStrayBytes(t *testing.T, at endpoint) {
	w := at.joined(t)
	sendBinary(t, w, "a")
	at.closes(t, w)
}

func closesOnExtraBytes(t *testing.T, at endpoint) {
	w := at.joined(t)
	send(t, w, `451-["message",`+placeholder0+`]`)
	sendBinary(t, w, "a")
	at.gets(t, w, `451-["message-back",`+placeholder0+`]`)
	at.getsFrames(t, w, Frame{true, "a"})
	sendBinary(t, w, "b")
	at.closes(t, w)
}

func closesAmongBytes(packet string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		w := at.joined(t)
		send(t, w, `452-["message",`+placeholder0+`,`+placeholder1+`]`)
		sendBinary(t, w, "a")
		send(t, w, packet)
		at.closes(t, w)
	}
}
