package conformance

import (
	"strings"
	"testing"
)

var messageChecks = []check{
	{name: "takes and gives a message by polling", run: exchanges([]string{"4hello"})},
	{name: "takes and gives an empty message", run: exchanges([]string{"4"})},
	{name: "takes and gives several messages in one payload, in order", run: exchanges([]string{"4one", "4two", "4three"})},
	{name: "takes and gives bytes as base64 by polling", run: exchanges([]string{"bAQIDBA=="})},
	{name: "takes and gives text and bytes in one payload", run: exchanges([]string{"4hello", "bAQIDBA==", "4bye"})},
	{name: "takes and gives every character by polling", run: exchanges([]string{"4é€😀\u2028\x00\"\\"})},
	{name: "holds messages until they are polled", run: holdsMessages},
	{name: "answers a poll that waits as soon as there is a message", run: answersWaitingPoll},
	{name: "takes and gives text by WebSocket", run: exchangesText},
	{name: "takes and gives bytes by WebSocket as they are", run: exchangesBytes},
	{name: "takes and gives a message of many frames by WebSocket", run: exchangesLong},
	{name: "keeps the order of text and bytes by WebSocket", run: keepsOrder},
	{name: "takes no notice of a noop", run: ignoresNoop},
	{name: "takes no notice of an upgrade packet where nothing is upgraded", run: ignoresUpgrade},
}

func exchanges(packets []string) func(*testing.T, endpoint) {
	return func(t *testing.T, at endpoint) {
		p := at.polling(t)
		at.post(t, p, packets...)
		at.polls(t, p, packets...)
	}
}

func holdsMessages(t *testing.T, at endpoint) {
	p := at.polling(t)
	at.post(t, p, "4one")
	at.post(t, p, "4two")
	if answer := at.get(t, p); answer.Body != "4one"+Separator+"4two" {
		t.Errorf("polled %q", answer.Body)
	}
}

func answersWaitingPoll(t *testing.T, at endpoint) {
	p := at.polling(t)
	answers := make(chan string, 1)
	go func() {
		answer, err := p.Get(at.ctx)
		if err != nil {
			answer.Body = err.Error()
		}
		answers <- answer.Body
	}()
	at.post(t, p, "4now")
	if got := <-answers; got != "4now" {
		t.Errorf("polled %q", got)
	}
}

func exchangesText(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	for _, packet := range []string{"4hello", "4é€😀\u2028\x00\"\\", "4" + Separator, "4b", "40", "4one" + Separator + "4two"} {
		send(t, w, packet)
		at.gets(t, w, packet)
	}
}

func exchangesBytes(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	for _, data := range []string{"\x01\x02\x03\x04", "4text", "\xff\xfe\x00", "b"} {
		sendBinary(t, w, data)
		at.getsFrames(t, w, Frame{true, data})
	}
}

func exchangesLong(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	long := "4" + strings.Repeat("0123456789", 20_000)
	send(t, w, long)
	at.gets(t, w, long)
}

func keepsOrder(t *testing.T, at endpoint) {
	w := at.webSocket(t)
	for range 20 {
		send(t, w, "4text")
		sendBinary(t, w, "bytes")
	}
	for range 20 {
		at.getsFrames(t, w, Frame{Data: "4text"}, Frame{true, "bytes"})
	}
}

func ignoresNoop(t *testing.T, at endpoint) {
	w, p := at.webSocket(t), at.polling(t)
	send(t, w, "6")
	at.echoes(t, w)
	at.post(t, p, "6", "4hello")
	at.polls(t, p, "4hello")
}

func ignoresUpgrade(t *testing.T, at endpoint) {
	w, p := at.webSocket(t), at.polling(t)
	send(t, w, "5")
	at.echoes(t, w)
	at.post(t, p, "5", "4hello")
	at.polls(t, p, "4hello")
}
