package conformance

import (
	"strings"
	"testing"
)

var badPacketChecks = []check{
	{name: "closes on a packet that is none", run: closesJoined("4abc")},
	{name: "closes on an empty packet", run: closesJoined("4")},
	{name: "closes on a packet type past the last", run: closesJoined(`47["message"]`)},
	{name: "closes on an event without a list", run: closesJoined("42"),
		stricter: "the original takes it for an event with no name, and drops it"},
	{name: "closes on an event that is an object", run: closesJoined("42{}")},
	{name: "closes on an event that is a string", run: closesJoined(`42"message"`)},
	{name: "closes on an event without a name", run: closesJoined("42[]")},
	{name: "closes on an event named null", run: closesJoined("42[null]")},
	{name: "closes on an event named true", run: closesJoined("42[true]")},
	{name: "closes on an event named by a list", run: closesJoined(`42[["message"]]`)},
	{name: "closes on an event named by an object", run: closesJoined(`42[{"message":1}]`)},
	{name: "closes on JSON that ends too early", run: closesJoined(`42["message"`)},
	{name: "closes on JSON with something behind it", run: closesJoined(`42["message"]1`)},
	{name: "closes on the reserved event connect", run: closesJoined(`42["connect"]`)},
	{name: "closes on the reserved event connect_error", run: closesJoined(`42["connect_error"]`)},
	{name: "closes on the reserved event disconnect", run: closesJoined(`42["disconnect"]`)},
	{name: "closes on the reserved event disconnecting", run: closesJoined(`42["disconnecting"]`)},
	{name: "closes on the reserved event newListener", run: closesJoined(`42["newListener"]`)},
	{name: "closes on the reserved event removeListener", run: closesJoined(`42["removeListener"]`)},
	{name: "closes on a reserved event with bytes", run: closesJoined(`451-["connect",`+placeholder0+`]`, "a")},
	{name: "closes on a number to acknowledge that is none", run: closesJoined(`42abc["message-with-ack",1]`)},
	{name: "closes on a negative number to acknowledge", run: closesJoined(`42-1["message-with-ack"]`)},
	{name: "closes on a fraction to acknowledge", run: closesJoined(`421.5["message-with-ack"]`)},
	{name: "closes on a number to acknowledge that JavaScript cannot tell from the next",
		run:      closesJoined(`429007199254740993["message-with-ack"]`),
		stricter: "the original acknowledges another number than it was asked to"},
	{name: "closes on a huge number to acknowledge",
		run:      closesJoined("42" + strings.Repeat("9", 400) + `["message-with-ack"]`),
		stricter: "the original acknowledges Infinity"},
	{name: "closes on white space in place of a number", run: closesJoined(`42 ["message"]`),
		stricter: "the original reads it as the number 0"},
	{name: "closes on an acknowledgement that is an object", run: closesJoined("431{}")},
	{name: "closes on an acknowledgement that is a string", run: closesJoined(`431"a"`)},
	{name: "closes on an acknowledgement without a list", run: closesJoined("431"),
		stricter: "the original takes it for one with no arguments"},
	{name: "closes on text that is not UTF-8", run: closesJoined("42[\"message\",\"\xff\"]")},
	{name: "closes on arguments nested too deep",
		run:      closesOnDepth,
		stricter: "the original fails with a stack overflow, and its process dies"},
	{name: "stays well when another client's packet is bad", run: staysWell},
}

func closesOnDepth(t *testing.T, at endpoint) {
	const depth = 100_000
	bystander, w := at.joined(t), at.joined(t)
	send(t, w, `42["message",`+strings.Repeat("[", depth)+strings.Repeat("]", depth)+"]")
	at.closes(t, w)
	at.answers(t, bystander, "/")
}

func staysWell(t *testing.T, at endpoint) {
	bystander := at.joined(t)
	for _, packet := range []string{"4abc", "42{}", "42[]", `42["connect"]`, "45999-[]", "40", "44"} {
		w := at.joined(t)
		send(t, w, packet)
		at.closes(t, w)
	}
	at.answers(t, bystander, "/")
}
