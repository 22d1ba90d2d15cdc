package projections

import (
	"encoding/binary"

	"github.com/plugcast/plugcast/domain"
)

// historyColumns are the columns of a row of the copy below, in order.
const historyColumns = "system_id, position_ms, position_seq, seq, id, type, version, time, actor, " +
	"correlation_id, causation_id, origin, device_id, data, hash, fault"

const copyHistory = "COPY history (" + historyColumns + ") FROM STDIN (FORMAT binary)"

// copyRows encodes rows in the binary form of COPY. pgx' own encoder takes a row as a slice of
// interfaces, which is sixteen allocations per event; this is none.
type copyRows struct{ buf []byte }

// copyHeader starts every binary copy: the signature, no flags, no extension.
const copyHeader = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"

// postgresEpoch is the start of Postgres' timestamps, in microseconds of Unix time.
const postgresEpoch = 946684800 * 1e6

// begin starts a copy. It frees the buffer that a batch of large events left behind.
func (c *copyRows) begin() {
	if cap(c.buf) > 2*maxBatchBytes {
		c.buf = nil
	}
	c.buf = append(c.buf[:0], copyHeader...)
}

func (c *copyRows) end() []byte { return binary.BigEndian.AppendUint16(c.buf, 0xffff) }

func (c *copyRows) add(e *domain.Event, row *numbered) {
	at := posOf(e.Position)
	c.buf = binary.BigEndian.AppendUint16(c.buf, 16)
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
	c.text(e.Origin)
	c.text(string(row.device))
	c.length(len(e.Data))
	c.buf = append(c.buf, e.Data...)
	c.length(len(row.hash))
	c.buf = append(c.buf, row.hash[:]...)
	if row.fault == nil {
		c.length(-1)
	} else {
		c.text(printable(row.fault.Error()))
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

// printable returns s as a text that Postgres accepts, of bounded length.
func printable(s string) string { return domain.TruncateText(s, 16<<10) }
