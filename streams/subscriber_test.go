package streams_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

// letter wraps the messages of the conformance suite, which are any bytes, into the data of
// events, which are JSON objects.
type letter struct {
	Payload  []byte            `json:"payload"`
	Metadata map[string]string `json:"metadata"`
}

// publisher writes the suite's messages to the log: a topic is a system.
type publisher struct{ log *streams.Log }

func (p publisher) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		data, err := json.Marshal(letter{msg.Payload, msg.Metadata})
		if err != nil {
			return err
		}
		e := domain.Event{ID: msg.UUID, Type: "letter", Version: 1, SystemID: domain.SystemID(topic), Data: data}
		if _, err := p.log.Append(msg.Context(), []domain.Event{e}, domain.AppendOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (publisher) Close() error { return nil }

// reader undoes the wrapping of publisher. Watermill's own decorator for this waits for ever if
// it is closed without a receiver.
type reader struct {
	*streams.Subscriber
	working sync.WaitGroup
}

func (r *reader) Close() error {
	defer r.working.Wait()
	return r.Subscriber.Close()
}

func (r *reader) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	in, err := r.Subscriber.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	r.working.Go(func() { // ends with the subscription, which closes in
		defer close(out)
		for msg := range in {
			var l letter
			if json.Unmarshal(msg.Payload, &l) == nil {
				msg.Payload, msg.Metadata = l.Payload, l.Metadata
			}
			select {
			case out <- msg:
			case <-msg.Context().Done():
			}
		}
	})
	return out, nil
}

// TestWatermillConformance runs Watermill's suite for implementations of its Pub/Sub.
func TestWatermillConformance(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	construct := func(t *testing.T) (message.Publisher, message.Subscriber) {
		sub := streams.NewSubscriber(l, streams.SubscriberConfig{Start: l.Origin, NackPause: time.Millisecond})
		return publisher{l}, &reader{Subscriber: sub}
	}
	features := tests.Features{
		GuaranteedOrder:                     true,
		GuaranteedOrderWithSingleSubscriber: true, // each subscriber gets everything
		Persistent:                          true,
		NewSubscriberReceivesOldMessages:    true,
		ForceShort:                          testing.Short(),
	}
	tests.TestPubSub(t, features, construct, nil)
}

func subscribe(t *testing.T, l *streams.Log, cfg streams.SubscriberConfig, topic string) <-chan *message.Message {
	t.Helper()
	s := streams.NewSubscriber(l, cfg)
	t.Cleanup(func() { _ = s.Close() })
	messages, err := s.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func receive(t *testing.T, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, open := <-messages:
		if open {
			return msg
		}
		t.Fatal("the channel was closed")
	case <-time.After(patience):
		t.Fatal("no message came")
	}
	return nil
}

func TestMessageEventIsTheEvent(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	old := mustAppend(t, l, update(sol, 1))
	all := subscribe(t, l, streams.SubscriberConfig{Start: l.Origin}, l.Topic(l.Partition(sol)))
	fresh := subscribe(t, l, streams.SubscriberConfig{}, string(sol))
	e := update(sol, 2)
	e.ID, e.Time, e.CausationID = "id", time.Unix(1, 0).UTC(), "cause"
	e.Position = mustAppend(t, l, e)[0]
	first := receive(t, all)
	if got, err := streams.MessageEvent(first); err != nil || got.Position != old[0] {
		t.Errorf("got %+v, %v", got, err)
	}
	first.Ack()
	for _, messages := range []<-chan *message.Message{all, fresh} {
		msg := receive(t, messages)
		if got, err := streams.MessageEvent(msg); err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", e) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, e)
		}
	}
}

func TestSubscriberRefusesOtherTopics(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	s := streams.NewSubscriber(l, streams.SubscriberConfig{})
	for _, topic := range []string{"", "no system", "plugcast:{p16}:events"} {
		if _, err := s.Subscribe(t.Context(), topic); err == nil {
			t.Errorf("topic %q was taken", topic)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Subscribe(context.Background(), string(sol)); err == nil {
		t.Error("a closed subscriber took a topic")
	}
}

func TestSubscriptionGoesOnAfterALoss(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	l := open(t, streams.Config{URL: url})
	messages := subscribe(t, l, streams.SubscriberConfig{}, string(sol))
	mustAppend(t, l, update(sol, 1))
	msg := receive(t, messages)
	if err := redistest.Connect(t, url).FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	msg.Ack()
	want := mustAppend(t, l, update(sol, 2))[0]
	got, err := streams.MessageEvent(receive(t, messages))
	if err != nil || got.Position != want {
		t.Errorf("got %s, %v; want %s", got.Position, err, want)
	}
}
