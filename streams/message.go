package streams

import (
	"context"
	"fmt"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// The fields of an entry, in the order in which they are written. Every entry
// has all of them, also where they are empty: Redis stores the names of a node
// of entries only once when they are always the same.
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

// fieldArgs are the names as arguments of a command, made once: a string that
// becomes an interface is an allocation, ten for every append.
var fieldArgs = func() (args [len(fieldNames)]any) {
	for i, name := range fieldNames {
		args[i] = name
	}
	return args
}()

// MetadataPosition and MetadataPartition are what a [Subscriber] adds to the
// metadata of a message, beside the fields of its entry.
const (
	MetadataPosition  = "position"
	MetadataPartition = "partition"
)

// newMessage makes the Watermill message of an event: its UUID is the event's
// id, its payload the data, and its metadata the rest.
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

// marshaller writes messages as entries of the log. It implements the
// Marshaller of watermill-redisstream.
type marshaller struct{}

// Marshal implements redisstream.Marshaller. The values are pointers to strings,
// which go-redis writes as it does strings: so they take one allocation in all.
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

// draft is an append on its way through Watermill's publisher, which calls XAdd
// once per message with the message's context and keeps the answer to itself.
// The entries are gathered here and sent by whoever made the draft.
type collector struct {
	entries [][]any // the values of each entry, in the order of fieldNames
}

type collectorKey struct{}

// collectingClient is the client that Watermill's publisher gets.
type collectingClient struct{ redis.UniversalClient }

// XAdd overrides the client's: it notes the entry in the draft of its context
// and sends nothing.
func (c collectingClient) XAdd(ctx context.Context, args *redis.XAddArgs) *redis.StringCmd {
	cmd := redis.NewStringCmd(ctx)
	d, ok := ctx.Value(collectorKey{}).(*collector)
	values, isMap := args.Values.(map[string]any)
	if !ok || !isMap {
		cmd.SetErr(fmt.Errorf("streams: an XADD to %s that is not an append", args.Stream))
		return cmd
	}
	entry := make([]any, len(fieldNames))
	for i, name := range fieldNames {
		entry[i] = values[name]
	}
	d.entries = append(d.entries, entry)
	return cmd
}

// Close overrides the client's: Watermill closes what it was given, and this
// client is the log's.
func (c collectingClient) Close() error { return nil }
