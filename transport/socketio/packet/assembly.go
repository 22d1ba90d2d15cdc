package packet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// ErrAttachments is the error for an attachment where none is allowed.
var ErrAttachments = fmt.Errorf("%w: binary data", ErrBad)

// Assembly assembles packets from messages: a packet with attachments is one text message,
// followed by one binary message per attachment. It serves one direction of one connection,
// from one goroutine at a time. The zero value accepts no attachments.
type Assembly struct {
	MaxAttachments int // of one packet

	waiting *Packet
	missing int
}

// Text adds a text message. done reports that p is complete.
func (a *Assembly) Text(message []byte) (p Packet, done bool, err error) {
	if a.waiting != nil {
		return Packet{}, false, bad("text where an attachment belongs")
	}
	p, attachments, err := Parse(message)
	if err != nil {
		return Packet{}, false, err
	}
	if attachments > a.MaxAttachments {
		return Packet{}, false, fmt.Errorf("%w: %d attachments, where %d may be", ErrAttachments, attachments, a.MaxAttachments)
	}
	if p.Type == BinaryEvent || p.Type == BinaryAck {
		if err := checkPlaceholders(p.Data, attachments); err != nil {
			return Packet{}, false, err
		}
	}
	if attachments == 0 {
		return p, true, nil
	}
	waiting := p
	a.waiting, a.missing = &waiting, attachments
	return Packet{}, false, nil
}

// Binary adds a binary message. done reports that p is complete.
func (a *Assembly) Binary(message []byte) (p Packet, done bool, err error) {
	if a.waiting == nil {
		return Packet{}, false, fmt.Errorf("%w: one that belongs to nothing", ErrAttachments)
	}
	a.waiting.Attachments = append(a.waiting.Attachments, message)
	if a.missing--; a.missing > 0 {
		return Packet{}, false, nil
	}
	p, a.waiting = *a.waiting, nil
	return p, true, nil
}

// checkPlaceholders refuses data with a placeholder for a missing attachment.
func checkPlaceholders(data []byte, attachments int) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var document any // no deeper than maxDepth
	if err := d.Decode(&document); err != nil && err != io.EOF {
		return bad("data that are no JSON")
	}
	return checkPlaceholder(document, attachments)
}

func checkPlaceholder(part any, attachments int) error {
	switch part := part.(type) {
	case []any:
		for _, p := range part {
			if err := checkPlaceholder(p, attachments); err != nil {
				return err
			}
		}
	case map[string]any:
		if part["_placeholder"] == true {
			n, _ := part["num"].(json.Number)
			if i, err := n.Int64(); err != nil || i < 0 || i >= int64(attachments) {
				return bad("a placeholder for an attachment that is not there")
			}
			return nil
		}
		for _, p := range part {
			if err := checkPlaceholder(p, attachments); err != nil {
				return err
			}
		}
	}
	return nil
}
