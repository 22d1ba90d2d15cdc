package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
)

var _ message.Subscriber = (*Subscriber)(nil)

// metadataCorrelationID is the key under which Watermill's own middleware expects the
// correlation id.
const metadataCorrelationID = "correlation_id"

// DefaultNackPause is the default of [SubscriberConfig.NackPause].
const DefaultNackPause = 100 * time.Millisecond

// SubscriberConfig holds the settings of a [Subscriber]. The zero value is fine.
type SubscriberConfig struct {
	// Start returns the position after which a new subscription to a partition, or to a system
	// in it, begins. Nil means [Log.Tail]: only events from now on. Use [Log.Origin] for all
	// events in Redis.
	Start func(ctx context.Context, partition int) (domain.Position, error)
	// Types are the types of events that become messages; the others are skipped early. Empty
	// means all.
	Types []domain.EventType
	// NackPause is how long a message that was not acknowledged waits before it is sent again;
	// [DefaultNackPause] if 0.
	NackPause time.Duration
}

// Subscriber is the log as Watermill sees it: one message per event, each sent after the
// previous one was acknowledged. It is for handlers of single events, such as those of a
// Watermill Router. A program that reads many events uses [Log.Follow].
//
// A topic is either a partition's stream, as [Log.Topic] names it, or the id of a system, for
// that system's events only. Within a topic messages come in the order of the log. A message
// that is nacked is sent again before any later one, without limit: a Router's middleware
// decides when to give up. An acknowledged message is not sent again to the same subscription,
// but acknowledgements are not stored. [MessageEvent] converts a message back.
//
// If the log was trimmed beyond a subscription, wiped or set back, the subscription logs that
// and continues with the nearest event.
type Subscriber struct {
	log     *Log
	config  SubscriberConfig
	closing context.Context
	close   context.CancelFunc
	mu      sync.Mutex
	working sync.WaitGroup
}

// NewSubscriber returns a Subscriber. Close it before the log.
func NewSubscriber(l *Log, cfg SubscriberConfig) *Subscriber {
	if cfg.Start == nil {
		cfg.Start = l.Tail
	}
	if cfg.NackPause == 0 {
		cfg.NackPause = DefaultNackPause
	}
	s := &Subscriber{log: l, config: cfg}
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

// Topic returns the name of a partition's stream, for [Subscriber.Subscribe].
func (l *Log) Topic(partition int) string { return l.keys[partition].events }

// Subscribe implements [message.Subscriber]. The channel is closed when ctx ends, or when the
// Subscriber or the log is closed.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	partition, system, err := s.log.parseTopic(topic)
	if err != nil {
		return nil, err
	}
	start, err := s.config.Start(ctx, partition)
	if err != nil {
		return nil, fmt.Errorf("streams: subscribe to %s: %w", topic, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	sub := &subscription{subscriber: s, partition: partition, system: system, at: start, out: make(chan *message.Message)}
	s.working.Go(func() {
		defer cancel()
		defer context.AfterFunc(s.closing, cancel)()
		defer close(sub.out)
		sub.run(ctx)
	})
	return sub.out, nil
}

// Close implements [message.Subscriber]: it ends all subscriptions and waits
// until their channels are closed. Closing twice is no error.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.close()
	s.mu.Unlock()
	s.working.Wait()
	return nil
}

// parseTopic distinguishes partitions, whose names have braces, from systems, whose ids cannot.
func (l *Log) parseTopic(topic string) (partition int, system domain.SystemID, err error) {
	if strings.Contains(topic, "{") {
		for p := range l.keys {
			if l.keys[p].events == topic {
				return p, "", nil
			}
		}
		return 0, "", fmt.Errorf("streams: there is no partition %q", topic)
	}
	if system, err = domain.ParseSystemID(topic); err != nil {
		return 0, "", err
	}
	return l.Partition(system), system, nil
}

// subscription sends the messages of one topic to one channel.
type subscription struct {
	subscriber *Subscriber
	partition  int
	system     domain.SystemID // "" for all of the partition
	at         domain.Position // position of the last event that was acknowledged or skipped
	out        chan *message.Message
}

func (s *subscription) run(ctx context.Context) {
	l := s.subscriber.log
	for {
		err := l.Follow(ctx, s.partition, s.at, func(events []domain.Event) error {
			for i := range events {
				if s.wants(&events[i]) {
					if err := s.send(ctx, &events[i]); err != nil {
						return err
					}
				}
				s.at = events[i].Position
			}
			return nil
		})
		if !errors.Is(err, ErrTrimmed) && !errors.Is(err, ErrRewound) {
			return
		}
		l.logger.Error("a subscription missed part of the log", "partition", s.partition, "system", s.system, "error", err)
		if s.at, err = l.Nearest(ctx, s.partition, s.at); err != nil {
			return
		}
	}
}

func (s *subscription) wants(e *domain.Event) bool {
	types := s.subscriber.config.Types
	return (s.system == "" || e.SystemID == s.system) && (len(types) == 0 || slices.Contains(types, e.Type))
}

// send sends an event until it is acknowledged.
func (s *subscription) send(ctx context.Context, e *domain.Event) error {
	for {
		acked, err := s.attempt(ctx, e)
		if acked || err != nil {
			return err
		}
		if err := backoff.Sleep(ctx, s.subscriber.config.NackPause); err != nil {
			return err
		}
	}
}

// attempt sends one message and waits until it is acked or nacked. The message's context ends
// with it.
func (s *subscription) attempt(ctx context.Context, e *domain.Event) (acked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	msg := newMessage(ctx, e)
	msg.Payload = append(message.Payload(nil), e.Data...) // handlers may change it
	msg.Metadata[MetadataPosition] = e.Position.String()
	msg.Metadata[MetadataPartition] = strconv.Itoa(s.partition)
	msg.Metadata[metadataCorrelationID] = e.CorrelationID
	select {
	case s.out <- msg:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	select {
	case <-msg.Acked():
		return true, nil
	case <-msg.Nacked():
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// MessageEvent returns the event of a message from a [Subscriber]. Its Seq is 0.
func MessageEvent(msg *message.Message) (domain.Event, error) {
	md := msg.Metadata
	e := domain.Event{
		ID: msg.UUID, Type: domain.EventType(md[fieldType]), SystemID: domain.SystemID(md[fieldSystemID]), Actor: md[fieldActor],
		CorrelationID: md[fieldCorrelationID], CausationID: md[fieldCausationID], Origin: md[fieldOrigin], Data: []byte(msg.Payload),
	}
	var err, versionErr error
	if e.Position, err = domain.ParsePosition(md[MetadataPosition]); err == nil {
		e.Time, err = domain.ParseTime(md[fieldTime])
	}
	e.Version, versionErr = strconv.Atoi(md[fieldVersion])
	if err = errors.Join(err, versionErr); err != nil {
		return domain.Event{}, fmt.Errorf("streams: message %s is not an event: %w", msg.UUID, err)
	}
	return e, nil
}
