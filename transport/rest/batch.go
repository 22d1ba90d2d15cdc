package rest

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/plugcast/plugcast/domain"
)

// maxItem is the maximum size of one update of a batch in bytes. Attributes, the
// largest part, are limited to 4 KiB.
const maxItem = 64 << 10

// readBatch reads a batch of device updates: a JSON array, or objects one after the
// other (NDJSON). Its error names the first invalid item. It buffers one item at a
// time, and stops at the first item beyond the limit. It returns errors of body
// unchanged. It writes the identity of the batch to digest, unless that is nil: the
// items without white space and separators.
func readBatch(body io.Reader, digest io.Writer) ([]domain.SystemUpdate, error) {
	in := &itemReader{in: newItemBuffer(body), maxBytes: maxItem}
	updates := make([]domain.SystemUpdate, 0, 64)
	for {
		item, err := in.next()
		switch {
		case errors.Is(err, io.EOF) && len(updates) == 0 && !in.array:
			return nil, invalidRequest("the body is empty; send a JSON array of updates, or one update per line")
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
		if digest != nil {
			if err := addToDigest(item, digest); err != nil {
				return nil, err
			}
		}
		updates = append(updates, update)
	}
}

// addToDigest writes an item to the digest as one line.
func addToDigest(item []byte, digest io.Writer) error {
	line, err := domain.CompactJSON(item)
	if err != nil {
		return err // unreachable: the item was parsed before
	}
	if _, err = digest.Write(line); err == nil {
		_, err = io.WriteString(digest, "\n")
	}
	return err
}

func newItemBuffer(body io.Reader) *bufio.Reader { return bufio.NewReaderSize(body, 32<<10) }

// itemReader splits a body into its items. It only finds the end of each object; the
// caller's parser checks the JSON. A general decoder would read every byte two more
// times.
type itemReader struct {
	in       *bufio.Reader
	maxBytes int // the maximum size of one item
	item     []byte
	count    int
	array    bool
	ended    bool
}

// next returns the bytes of the next item, which are valid until the next call. After
// the last item it returns io.EOF.
func (r *itemReader) next() ([]byte, error) {
	c, err := r.nextByte()
	if err == nil && (c == 0xEF || c >= 0xFE) {
		return nil, malformed("there is a byte order mark (BOM) before item %d; send JSON without one", r.count)
	}
	if r.count == 0 && c == '[' && err == nil {
		r.array = true
		c, err = r.nextByte()
	}
	if !r.array {
		return r.object(c, err)
	}
	if r.ended = r.ended || err == nil && c == ']'; r.ended {
		return nil, r.end()
	}
	if r.count > 0 && err == nil {
		if c != ',' {
			return nil, malformed("a comma is missing between items %d and %d", r.count-1, r.count)
		}
		c, err = r.nextByte()
	}
	if errors.Is(err, io.EOF) {
		return nil, malformed("the array is not closed")
	}
	return r.object(c, err)
}

// end checks that only white space follows the array, and then returns io.EOF.
func (r *itemReader) end() error {
	_, err := r.nextByte()
	if err == nil {
		return malformed("there is text after the array")
	}
	return err
}

// nextByte returns the next byte that is not white space.
func (r *itemReader) nextByte() (byte, error) {
	for {
		c, err := r.in.ReadByte()
		if err != nil || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c, err
		}
	}
}

// object reads the object that begins with c, up to its end.
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
		chunk, _ := r.in.Peek(r.in.Buffered()) // cannot fail: it reads the buffer only
		n := scan.feed(chunk)
		r.item = append(r.item, chunk[:n]...)
		_, _ = r.in.Discard(n)
		if len(r.item) > r.maxBytes {
			return nil, domain.AtIndex(domain.Invalid(domain.CodeInvalidUpdate,
				fmt.Sprintf("an item is limited to %d bytes", r.maxBytes)), r.count)
		}
	}
	r.count++
	return r.item, nil
}

// objectScan finds the end of an object across the chunks that feed gets.
type objectScan struct {
	depth   int // of open brackets; 0 at the end of the object
	quoted  bool
	escaped bool
}

// feed returns the number of bytes of chunk that belong to the object.
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
