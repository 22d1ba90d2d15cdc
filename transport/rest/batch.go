package rest

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/plugcast/plugcast/domain"
)

// maxItem bounds one update of a batch in bytes. Attributes, the largest part,
// are limited to 4 KiB.
const maxItem = 64 << 10

// readBatch reads a batch of device updates, a JSON array or one object after
// the other (NDJSON), and says so of the first item that is wrong. It holds no
// more of the body than one item, and stops at the first item too many. Errors
// of body itself come back as they are. identity, unless it is nil, gets what makes
// the batch the one that it is: its items, without white space and what is between
// them.
func readBatch(body io.Reader, identity io.Writer) ([]domain.SystemUpdate, error) {
	in := &itemReader{in: newItemBuffer(body), most: maxItem}
	updates := make([]domain.SystemUpdate, 0, 64)
	for {
		item, err := in.next()
		switch {
		case errors.Is(err, io.EOF) && len(updates) == 0 && !in.array:
			return nil, invalidRequest("a body is needed: a JSON array of updates, or one per line")
		case errors.Is(err, io.EOF):
			return updates, nil
		case err != nil:
			return nil, err
		}
		if len(updates) == domain.MaxUpdatesPerBatch {
			return nil, domain.Fail(domain.KindTooLarge, domain.CodeBatchTooLarge,
				fmt.Sprintf("a batch holds at most %d updates", domain.MaxUpdatesPerBatch))
		}
		update, err := domain.ParseSystemUpdate(item)
		if err != nil {
			return nil, domain.AtIndex(err, len(updates))
		}
		if identity != nil {
			if err := identify(item, identity); err != nil {
				return nil, err
			}
		}
		updates = append(updates, update)
	}
}

// identify writes an item for a fingerprint, as one line.
func identify(item []byte, identity io.Writer) error {
	line, err := domain.CompactJSON(item)
	if err != nil {
		return err // unreachable: it was parsed
	}
	if _, err = identity.Write(line); err == nil {
		_, err = io.WriteString(identity, "\n")
	}
	return err
}

func newItemBuffer(body io.Reader) *bufio.Reader { return bufio.NewReaderSize(body, 32<<10) }

// itemReader cuts a body into its items. It only looks for where an object ends;
// whether it is JSON is seen when the item is parsed. A general decoder would
// read every byte twice more.
type itemReader struct {
	in    *bufio.Reader
	most  int // bytes of one item
	item  []byte
	count int
	array bool
	ended bool
}

// next returns the bytes of the next item, which are good until the next call,
// or io.EOF behind the last.
func (r *itemReader) next() ([]byte, error) {
	c, err := r.nextByte()
	if err == nil && (c == 0xEF || c >= 0xFE) {
		return nil, malformed("there is a byte order mark (BOM) before item %d; send JSON without", r.count)
	}
	if r.count == 0 && c == '[' && err == nil {
		r.array = true
		c, err = r.nextByte()
	}
	if !r.array {
		return r.object(c, err)
	}
	if r.ended = r.ended || err == nil && c == ']'; r.ended {
		return nil, r.nothingMore()
	}
	if r.count > 0 && err == nil {
		if c != ',' {
			return nil, malformed("between items %d and %d there must be a comma", r.count-1, r.count)
		}
		c, err = r.nextByte()
	}
	if errors.Is(err, io.EOF) {
		return nil, malformed("the array is not closed")
	}
	return r.object(c, err)
}

// nothingMore checks that only white space is behind the array.
func (r *itemReader) nothingMore() error {
	_, err := r.nextByte()
	if err == nil {
		return malformed("there is more after the array")
	}
	return err
}

// nextByte skips white space.
func (r *itemReader) nextByte() (byte, error) {
	for {
		c, err := r.in.ReadByte()
		if err != nil || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c, err
		}
	}
}

// object reads on to the end of the object that begins with c.
func (r *itemReader) object(c byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	if c != '{' {
		return nil, domain.AtIndex(domain.Invalid(domain.CodeInvalidUpdate, "an item is a JSON object"), r.count)
	}
	r.item = append(r.item[:0], c)
	scan := objectScan{depth: 1}
	for scan.depth > 0 {
		if _, err := r.in.Peek(1); errors.Is(err, io.EOF) {
			return nil, domain.AtIndex(domain.Invalid(domain.CodeInvalidUpdate, "the object is not closed"), r.count)
		} else if err != nil {
			return nil, err
		}
		chunk, _ := r.in.Peek(r.in.Buffered()) // what is buffered is always there
		n := scan.feed(chunk)
		r.item = append(r.item, chunk[:n]...)
		_, _ = r.in.Discard(n)
		if len(r.item) > r.most {
			return nil, domain.AtIndex(domain.Invalid(domain.CodeInvalidUpdate,
				fmt.Sprintf("an item is limited to %d bytes", r.most)), r.count)
		}
	}
	r.count++
	return r.item, nil
}

// objectScan looks for the end of an object that begins before what it is fed.
type objectScan struct {
	depth   int // of brackets that are open; 0 at the end
	quoted  bool
	escaped bool
}

// feed returns how many bytes belong to the object.
func (s *objectScan) feed(chunk []byte) int {
	for i, c := range chunk {
		switch {
		case s.escaped:
			s.escaped = false
		case s.quoted:
			s.escaped, s.quoted = c == '\\', c != '"'
		case c == '"':
			s.quoted = true
		case c == '{', c == '[':
			s.depth++
		case c == '}', c == ']':
			if s.depth--; s.depth == 0 {
				return i + 1
			}
		}
	}
	return len(chunk)
}

func malformed(format string, args ...any) error {
	return invalidRequest("malformed JSON: "+format, args...)
}
