package engineio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// servePoll answers a GET with the queue, and waits if the queue is empty.
func (s *Session) servePoll(w http.ResponseWriter, r *http.Request) {
	defer s.endOnPanic()
	items, waiting, concurrent := s.beginPoll(requestMark(r))
	if concurrent {
		s.endConcurrent(r.Context())
	}
	if waiting != nil {
		select {
		case items = <-waiting.items:
		case <-r.Context().Done(): // the client hung up
			if s.hungUp(waiting) {
				s.fail(ReasonClosed)
			}
			return
		}
	}
	if items == nil {
		s.control()
		failRequest.write(w)
		return
	}
	s.answerPoll(w, items)
}

// requestMark returns the parameter with which a client makes each request unique, for
// caches; "" if there is none. Browsers and proxies repeat a request when a connection
// breaks before the answer, without the client's knowledge. A repeated request has the same
// mark.
func requestMark(r *http.Request) string { return r.URL.Query().Get("t") }

// beginPoll takes the queue for a GET or, if it is empty, lets the GET wait. It returns
// neither for a GET while another waits, nor for a repeated GET, whose first answer may be
// lost: both end the session, and a client that can recover does so. It also returns neither
// if a WebSocket carries the session.
func (s *Session) beginPoll(mark string) (items []outgoing, waiting *poll, concurrent bool) {
	s.mu.Lock()
	again := mark != "" && mark == s.got
	s.got = mark
	s.polls++
	switch {
	case s.state == closed || s.socket != nil:
		s.mu.Unlock()
		return nil, nil, false
	case s.poll != nil:
		s.mu.Unlock()
		return nil, nil, true
	case again:
		s.mu.Unlock()
		s.fail(ReasonError)
		return nil, nil, false
	case len(s.queue) > 0:
		items = s.take()
	case s.leaving != nil:
		close(s.leaving)
		s.leaving = nil
		items = []outgoing{{bytes: noopPacket}}
	default:
		waiting = &poll{items: make(chan []outgoing, 1)}
		s.poll = waiting
		if s.probing != nil && s.probing.answered {
			// The client waits for this GET to end before it continues. Or it has continued
			// already, and the GET is late, for example the first one after the handshake.
			wait := upgradePause
			if s.polls == 2 { // the handshake and this one
				wait = reorderWindow
			}
			time.AfterFunc(wait, func() { s.release(waiting) })
		}
	}
	s.mu.Unlock()
	return items, waiting, false
}

// endConcurrent ends a session with two waiting GETs; ctx is the second one's. The first
// gets a close packet, unless the second was given up: then the second was sent earlier and
// overtaken, and the first is refused as late.
func (s *Session) endConcurrent(ctx context.Context) {
	enough := time.NewTimer(reorderWindow)
	defer enough.Stop()
	select {
	case <-ctx.Done():
		s.finish(ReasonClosed, nil)
	case <-enough.C:
		s.fail(ReasonError)
	}
}

// hungUp reports whether the session ends because its GET was given up. It does not if the
// GET had ended without taking anything, as at an upgrade.
func (s *Session) hungUp(waiting *poll) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll == waiting {
		return true
	}
	items := <-waiting.items // put there under the lock
	return len(items) > 1 || len(items) == 1 && (items[0].binary || !bytes.Equal(items[0].bytes, noopPacket))
}

// answerPoll writes a payload, and calls the receipts.
func (s *Session) answerPoll(w http.ResponseWriter, items []outgoing) {
	err := s.writePayload(w, items)
	if items[len(items)-1].close {
		s.finish(ReasonForced, nil) // all of it is out
		return
	}
	if err != nil {
		s.fail(ReasonClosed)
		return
	}
	for i := range items {
		if r := items[i].receipt; r != nil {
			r.Sent()
		}
	}
}

func (s *Session) writePayload(w http.ResponseWriter, items []outgoing) error {
	body := items[0].bytes // nearly always the only one
	if len(items) > 1 || items[0].binary {
		size := 0
		for i := range items {
			size += len(items[i].bytes) + 1
		}
		body = make([]byte, 0, size)
		for i := range items {
			body = appendItem(body, &items[i])
		}
	}
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=UTF-8")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(s.server.config.WriteTimeout)) // in a test there may be none
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	if _, err := w.Write(body); err != nil {
		return err
	}
	return control.Flush()
}

// endOnPanic ends the session if a request of it panics, and panics again for the program's
// own recovery.
func (s *Session) endOnPanic() {
	if value := recover(); value != nil {
		s.fail(ReasonError)
		panic(value)
	}
}

// servePost handles the packets of a POST.
func (s *Session) servePost(w http.ResponseWriter, r *http.Request) {
	if !s.beginPost() {
		s.control()
		failRequest.write(w)
		return
	}
	defer s.endPost()
	defer s.endOnPanic()
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/octet-stream") { // of the protocol's third version
		s.fail(ReasonError)
		failRequest.write(w)
		return
	}
	body, err := s.readPayload(w, r)
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		s.control()
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	} else if err != nil {
		s.fail(ReasonClosed)
		return
	}
	if s.isPosted(requestMark(r)) {
		body = noopPacket // the first copy was handled
	}
	for rest := bytes.ToValidUTF8(body, []byte("\uFFFD")); ; { // as browsers and Node read it
		var first []byte
		first, rest = cutPacket(rest)
		p, err := parsePacket(first)
		if err != nil {
			s.fail(ReasonParse)
			break
		}
		if p.kind == packetClose {
			s.leave(r.Context())
		}
		if s.receive(p); rest == nil || !s.is(open) {
			break // an ending session accepts only the client's close
		}
	}
	header := w.Header()
	header.Set("Content-Type", "text/html")
	header.Set("Content-Length", "2")
	_, _ = io.WriteString(w, "ok") // fails only if the client is gone, which its GET will notice
}

// leave waits up to reorderWindow for the last GET of a client that closes, if none is
// waiting, because that GET may have been overtaken.
func (s *Session) leave(ctx context.Context) {
	s.mu.Lock()
	if s.poll != nil || s.state == closed {
		s.mu.Unlock()
		return
	}
	came := make(chan struct{})
	s.leaving = came
	s.mu.Unlock()
	enough := time.NewTimer(reorderWindow)
	defer enough.Stop()
	select {
	case <-came:
	case <-enough.C:
	case <-ctx.Done():
	}
}

func (s *Session) readPayload(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	most := s.server.config.MaxPayload
	if r.ContentLength > most {
		w.Header().Set("Connection", "close") // instead of reading the body
		return nil, &http.MaxBytesError{Limit: most}
	}
	// The deadline stays: net/http reads the rest of a body after the handler, and removes the
	// deadline itself after a complete body. Tests may have no deadline.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.server.config.WriteTimeout))
	reader := http.MaxBytesReader(w, r.Body, most)
	if r.ContentLength < 0 {
		return io.ReadAll(reader)
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(reader, body)
	return body, err
}

// beginPost reports whether a POST is allowed now. A concurrent POST ends the session.
func (s *Session) beginPost() bool {
	s.mu.Lock()
	concurrent := s.posting
	ok := !concurrent && s.state != closed && s.socket == nil
	if ok {
		s.posting = true
	}
	s.mu.Unlock()
	if concurrent {
		s.fail(ReasonError)
	}
	return ok
}

// isPosted reports whether a POST repeats the last one, and stores its mark.
func (s *Session) isPosted(mark string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	again := mark != "" && mark == s.posted
	s.posted = mark
	return again
}

func (s *Session) endPost() {
	s.mu.Lock()
	s.posting = false
	s.mu.Unlock()
}
