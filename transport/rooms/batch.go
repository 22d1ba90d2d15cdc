package rooms

import "github.com/plugcast/plugcast/domain/isolate"

// batchCache keeps the newest frames, so that readers at the same place share one frame.
// A few frames suffice: readers that keep up are at the same place, and readers that are
// behind are rarely at equal places.
type batchCache struct {
	slots [4]batch
	next  int
}

type batch struct {
	encoding Encoding
	from, to uint64 // the seqs of the first and the last event; the frame has all events between
	bytes    []byte
}

// encode returns the frame of events. Frames are shared only if their events are
// contiguous: then the readers' filters made no difference.
func (c *batchCache) encode(encoding Encoding, events []*Encoded) []byte {
	from, to := events[0].Cursor.Seq, events[len(events)-1].Cursor.Seq
	if to-from+1 != uint64(len(events)) {
		return encodeFrame(encoding, events)
	}
	if encoding == JSON && from == to {
		return events[0].Envelope
	}
	for i := range c.slots {
		if b := &c.slots[i]; b.from == from && b.to == to && b.encoding == encoding {
			return b.bytes
		}
	}
	bytes := encodeFrame(encoding, events)
	if bytes == nil {
		return nil
	}
	c.slots[c.next] = batch{encoding: encoding, from: from, to: to, bytes: bytes}
	c.next = (c.next + 1) % len(c.slots)
	return bytes
}

// encodeFrame returns nil if the encoding panics. It runs under the room's lock, so it must
// not unwind the room; the reader's sink is told instead of getting the frame.
func encodeFrame(encoding Encoding, events []*Encoded) (bytes []byte) {
	defer func() {
		if value := recover(); value != nil {
			isolate.Recovered(nil, where, value)
			bytes = nil
		}
	}()
	return encoding.Encode(events)
}

// clear drops all frames, because the seqs are about to be counted again.
func (c *batchCache) clear() { c.slots = [len(c.slots)]batch{} }
