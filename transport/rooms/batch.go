package rooms

import "github.com/plugcast/plugcast/domain/isolate"

// batchCache keeps the last few frames, so that readers at the same place share
// one. Few suffice: readers that keep up are at the same place, and of those
// that do not there are no two alike.
type batchCache struct {
	slots [4]batch
	next  int
}

type batch struct {
	encoding Encoding
	from, to uint64 // seqs of the first and the last event, all between included
	bytes    []byte
}

// encode returns the frame of events. They may be shared when they follow each
// other without a hole: then no filter shows in the frame.
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

// encodeFrame returns nil when the encoding panics: what is around it, under the room's
// lock, goes on as it was, and the reader's sink is broken instead of given the frame.
func encodeFrame(encoding Encoding, events []*Encoded) (bytes []byte) {
	defer func() {
		if value := recover(); value != nil {
			isolate.Recovered(nil, where, value)
			bytes = nil
		}
	}()
	return encoding.Encode(events)
}

// clear forgets all frames: the seqs are counted anew.
func (c *batchCache) clear() { c.slots = [len(c.slots)]batch{} }
