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

// servePoll answers a GET with what is queued, waiting for something to come.
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

// requestMark is what a client makes a request unlike all others with, for caches; "" if
// it does not. Browsers and proxies send a request again by themselves when a
// connection breaks before an answer comes, and the client never knows. The mark
// is the same then.
func requestMark(r *http.Request) string { return r.URL.Query().Get("t") }

// beginPoll takes what is there for a GET or, when nothing is, lets it wait. There
// is neither for one that comes while another waits, nor for one that is sent
// again, whose first answer may be lost: both end the session, and a client that
// can recover does. Nor is there for one of a session that a WebSocket carries.
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
			// The client waits for this GET to end before it goes on. Or it goes on
			// already, and the GET may not be: as when it is the first since the handshake.
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

// endConcurrent ends a session of which two GETs wait, the second with that context.
// The first hears a close packet, unless the second was given up: then it was sent
// before, was reorderWindow, and the first is refused as one that comes too late.
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

// hungUp reports whether the session ends with a GET that was given up: not when
// the GET was over without having taken anything, as at an upgrade.
func (s *Session) hungUp(waiting *poll) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll == waiting {
		return true
	}
	items := <-waiting.items // put there under the lock
	return len(items) > 1 || len(items) == 1 && (items[0].binary || !bytes.Equal(items[0].bytes, noopPacket))
}

// answerPoll writes a payload, and tells whom it may concern.
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

// endOnPanic ends the session when a request of it panics. The program's own
// handler catches the panic.
func (s *Session) endOnPanic() {
	if value := recover(); value != nil {
		s.fail(ReasonError)
		panic(value)
	}
}

// servePost takes the packets of a POST.
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
		body = noopPacket // it was handled when it came first
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
			break // one that is ending takes nothing but the client's own close
		}
	}
	header := w.Header()
	header.Set("Content-Type", "text/html")
	header.Set("Content-Length", "2")
	_, _ = io.WriteString(w, "ok") // a client that is gone will be missed by its GET
}

// leave waits a moment for the last GET of a client that is going, if there is
// none: it may have been reorderWindow.
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
		w.Header().Set("Connection", "close") // rather than read what nobody wants
		return nil, &http.MaxBytesError{Limit: most}
	}
	// The deadline stays: net/http reads what is left of a body after the handler, and lifts
	// the deadline itself when a single body was read. In a test there may be none.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.server.config.WriteTimeout))
	reader := http.MaxBytesReader(w, r.Body, most)
	if r.ContentLength < 0 {
		return io.ReadAll(reader)
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(reader, body)
	return body, err
}

// beginPost reports whether a POST may come now. One concurrent another ends the
// session.
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

// isPosted reports whether a POST is the last one again, and notes its mark.
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
