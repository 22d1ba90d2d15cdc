package streams

import (
	"context"
	"fmt"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// The fields of an entry, in the order in which they are written. Every entry has all of them,
// even if they are empty, because Redis stores the field names of a node of entries only once
// if they are the same in all entries.
const (
	fieldID            = "id"
	fieldType          = "type"
	fieldVersion       = "version"
	fieldSystemID      = "systemId"
	fieldTime          = "time"
	fieldActor         = "actor"
	fieldCorrelationID = "correlationId"
	fieldCausationID   = "causationId"
	fieldOrigin        = "origin"
	fieldData          = "data"
)

var fieldNames = [...]string{
	fieldID, fieldType, fieldVersion, fieldSystemID, fieldTime, fieldActor, fieldCorrelationID, fieldCausationID, fieldOrigin, fieldData,
}

// fieldArgs holds the names as arguments of a command. They are converted once, because a
// string that becomes an interface is an allocation, ten for every append.
var fieldArgs = func() (args [len(fieldNames)]any) {
	for i, name := range fieldNames {
		args[i] = name
	}
	return args
}()

// MetadataPosition and MetadataPartition are the metadata that a [Subscriber] adds to a
// message, beside the fields of its entry.
const (
	MetadataPosition  = "position"
	MetadataPartition = "partition"
)

// newMessage returns the Watermill message of an event: its UUID is the event's id, its payload
// the data, and its metadata the rest.
func newMessage(ctx context.Context, e *domain.Event) *message.Message {
	msg := message.NewMessageWithContext(ctx, e.ID, message.Payload(e.Data))
	md := msg.Metadata
	md[fieldType] = string(e.Type)
	md[fieldVersion] = strconv.Itoa(e.Version)
	md[fieldSystemID] = string(e.SystemID)
	md[fieldTime] = domain.FormatTime(e.Time)
	md[fieldActor] = e.Actor
	md[fieldCorrelationID] = e.CorrelationID
	md[fieldCausationID] = e.CausationID
	md[fieldOrigin] = e.Origin
	return msg
}

// marshaller converts messages to entries of the log. It implements the Marshaller of
// watermill-redisstream.
type marshaller struct{}

// Marshal implements redisstream.Marshaller. The values are pointers to strings, which go-redis
// writes like strings, so that they take one allocation together.
func (marshaller) Marshal(_ string, msg *message.Message) (map[string]any, error) {
	values := make(map[string]any, len(fieldNames))
	text := new([len(fieldNames)]string)
	for i, name := range fieldNames {
		switch name {
		case fieldID:
			text[i] = msg.UUID
		case fieldData:
			values[name] = []byte(msg.Payload)
			continue
		default:
			text[i] = msg.Metadata[name]
		}
		values[name] = &text[i]
	}
	return values, nil
}

// collector collects the entries of an append while it passes through Watermill's publisher.
// The publisher calls XAdd once per message with the message's context, and does not return the
// result. Therefore XAdd only collects the entries, and the append sends them itself.
type collector struct {
	entries [][]any // the values of each entry, in the order of fieldNames
}

type collectorKey struct{}

// collectingClient is the client that Watermill's publisher gets.
type collectingClient struct{ redis.UniversalClient }

// XAdd overrides the client's: it adds the entry to the collector of its context, and sends
// nothing.
func (collectingClient) XAdd(ctx context.Context, args *redis.XAddArgs) *redis.StringCmd {
	cmd := redis.NewStringCmd(ctx)
	c, ok := ctx.Value(collectorKey{}).(*collector)
	values, isMap := args.Values.(map[string]any)
	if !ok || !isMap {
		cmd.SetErr(fmt.Errorf("streams: an XADD to %s outside an append", args.Stream))
		return cmd
	}
	entry := make([]any, len(fieldNames))
	for i, name := range fieldNames {
		entry[i] = values[name]
	}
	c.entries = append(c.entries, entry)
	return cmd
}

// Close overrides the client's: Watermill closes the client that it was given, but this one
// belongs to the log.
func (collectingClient) Close() error { return nil }
