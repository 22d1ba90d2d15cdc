package projections

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// historyColumns are what one row of the copy below holds, in order.
const historyColumns = "system_id, position_ms, position_seq, seq, id, type, version, time, actor, " +
	"correlation_id, causation_id, device_id, data, hash, fault"

const copyHistory = "COPY history (" + historyColumns + ") FROM STDIN (FORMAT binary)"

// copyRows is the binary form of COPY, written by hand: pgx' own takes a row as
// a slice of interfaces, which is fifteen allocations for an event where this is
// none.
type copyRows struct{ buf []byte }

// copyHeader begins every binary copy: the signature, no flags, no extension.
const copyHeader = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"

// postgresEpoch is where Postgres counts microseconds from, in those of Unix.
const postgresEpoch = 946684800 * 1e6

// begin forgets what was copied before, and memory that a batch of large events
// left behind.
func (c *copyRows) begin() {
	if cap(c.buf) > 2*maxBatchBytes {
		c.buf = nil
	}
	c.buf = append(c.buf[:0], copyHeader...)
}

func (c *copyRows) end() []byte { return binary.BigEndian.AppendUint16(c.buf, 0xffff) }

func (c *copyRows) add(e *domain.Event, about *counted) {
	at := placeOf(e.Position)
	c.buf = binary.BigEndian.AppendUint16(c.buf, 15)
	c.text(string(e.SystemID))
	c.int64(at.ms)
	c.int64(at.n)
	c.int64(int64(e.Seq))
	c.text(e.ID)
	c.text(string(e.Type))
	c.int32(int32(e.Version))
	c.int64(e.Time.UnixMicro() - postgresEpoch)
	c.text(e.Actor)
	c.text(e.CorrelationID)
	c.text(e.CausationID)
	c.text(string(about.device))
	c.length(len(e.Data))
	c.buf = append(c.buf, e.Data...)
	c.length(len(about.hash))
	c.buf = append(c.buf, about.hash[:]...)
	if about.fault == nil {
		c.length(-1)
	} else {
		c.text(printable(about.fault.Error()))
	}
}

func (c *copyRows) length(n int) { c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(n)) }

func (c *copyRows) text(s string) {
	c.length(len(s))
	c.buf = append(c.buf, s...)
}

func (c *copyRows) int64(n int64) {
	c.length(8)
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(n))
}

func (c *copyRows) int32(n int32) {
	c.length(4)
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(n))
}

// maxText bounds the texts of an event that Postgres has to index: an index
// refuses what is longer than 2,700 bytes, and would with it refuse the batch.
const maxText = 512

// archivable returns the event as it is archived: as it is, or, when it could
// not be stored so, as the undecodable event of its position. The log lets
// through what it can read; what it cannot judge are the limits of tables.
func archivable(e domain.Event) domain.Event {
	reason := unstorable(&e)
	if reason == "" {
		return e
	}
	data, _ := json.Marshal(domain.Undecodable{Reason: reason, Fields: map[string]string{ // strings always marshal
		"id": printable(e.ID), "type": printable(string(e.Type)), "actor": printable(e.Actor),
		"correlationId": printable(e.CorrelationID), "causationId": printable(e.CausationID),
		"time": domain.FormatTime(e.Time), "data": printable(string(e.Data)),
	}})
	return domain.Event{
		ID: "undecodable-" + e.Position.String(), Type: domain.TypeUndecodable, Version: 1, SystemID: e.SystemID,
		Time: time.UnixMilli(int64(e.Position.Ms)).UTC(), Data: data, Position: e.Position,
	}
}

// unstorable says why an event cannot be a row, or "".
func unstorable(e *domain.Event) string {
	for _, s := range [...]string{e.ID, string(e.Type), e.Actor, e.CorrelationID, e.CausationID} {
		if len(s) > maxText {
			return "a field of the envelope is longer than 512 bytes"
		}
	}
	if e.Version > math.MaxInt32 {
		return "version is too large"
	}
	// An id within the data can only be too long, or hold a zero byte, when the
	// data is long or has such a byte in writing.
	if len(e.Data) <= maxText && !strings.Contains(string(e.Data), `\u0000`) {
		return ""
	}
	var ids struct {
		DeviceID     any `json:"deviceId"`
		EquipmentID  any `json:"equipmentId"`
		ConnectionID any `json:"connectionId"`
	}
	if json.Unmarshal(e.Data, &ids) != nil {
		return ""
	}
	for _, id := range []any{ids.DeviceID, ids.EquipmentID, ids.ConnectionID} {
		if s, _ := id.(string); len(s) > maxText || strings.ContainsRune(s, 0) {
			return "an id in data is longer than 512 bytes or holds a zero byte"
		}
	}
	return ""
}

// printable is s as a text that Postgres takes, of bounded length.
func printable(s string) string {
	const most = 16 << 10
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
