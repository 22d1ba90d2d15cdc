package streams

import (
	"errors"
	"fmt"
	"strconv"
)

// errMalformed says that a reply is not what was asked for.
var errMalformed = errors.New("streams: Redis sent a malformed reply")

// reply reads a raw answer of Redis (RESP 2) piece by piece. go-redis decodes
// entries into a map of interfaces each, which is thirty allocations for an
// event where two do: at 100,000 events/s that is most of a core.
type reply struct {
	buf []byte
	at  int
}

// line reads the next line: its type and the rest.
func (r *reply) line() (kind byte, rest []byte, err error) {
	for i := r.at; i+1 < len(r.buf); i++ {
		if r.buf[i] == '\r' && r.buf[i+1] == '\n' {
			line := r.buf[r.at:i]
			r.at = i + 2
			if len(line) == 0 {
				return 0, nil, errMalformed
			}
			if line[0] == '-' {
				return 0, nil, replyError(line[1:])
			}
			return line[0], line[1:], nil
		}
	}
	return 0, nil, errMalformed
}

func (r *reply) length(kind byte) (int, error) {
	got, rest, err := r.line()
	if err != nil {
		return 0, err
	}
	if got != kind {
		return 0, fmt.Errorf("%w: %q where %q was due", errMalformed, got, kind)
	}
	n := 0
	for _, c := range rest {
		if c < '0' || c > '9' {
			n, err := strconv.Atoi(string(rest))
			if err != nil || n != -1 {
				return 0, errMalformed
			}
			return n, nil
		}
		n = n*10 + int(c-'0')
	}
	return n, nil
}

// array reads the head of a list and returns its length, -1 for none.
func (r *reply) array() (int, error) { return r.length('*') }

// bulk reads a string, nil for none. It points into the reply.
func (r *reply) bulk() ([]byte, error) {
	n, err := r.length('$')
	if err != nil || n < 0 {
		return nil, err
	}
	if r.at+n+2 > len(r.buf) {
		return nil, errMalformed
	}
	b := r.buf[r.at : r.at+n]
	r.at += n + 2
	return b, nil
}

// skip reads past the next value, whatever it is.
func (r *reply) skip() error {
	for left := 1; left > 0; left-- {
		kind, rest, err := r.line()
		if err != nil {
			return err
		}
		if kind != '$' && kind != '*' {
			continue
		}
		n, err := strconv.Atoi(string(rest))
		switch {
		case err != nil:
			return errMalformed
		case n < 0:
		case kind == '*':
			left += n
		case r.at+n+2 > len(r.buf):
			return errMalformed
		default:
			r.at += n + 2
		}
	}
	return nil
}
