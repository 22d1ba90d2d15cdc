package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/transport/bridge"
)

const (
	// maxBody is the size, in bytes, at which a batch is complete. The far end accepts
	// 8 MiB, and 1 MiB per event.
	maxBody = 4 << 20
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 64 << 10
	// longestWait bounds the wait that the far end may ask for.
	longestWait = 30 * time.Second
)

// pusher sends our log to the far end.
type pusher struct {
	*session
	remote string
	at     domain.Position // the far end has our log up to here
}

// push sends our events to the far end until it fails.
func (s *session) push(ctx context.Context, up *countdown) error {
	p := &pusher{session: s}
	if err := p.begin(ctx); err != nil {
		return err
	}
	up.ready(p.remote)
	err := p.link.parts.Reader.Follow(ctx, s.system.System, p.at, func(events []domain.Event, behind uint64) error {
		return p.sendPage(ctx, events, behind)
	})
	if errors.Is(err, domain.ErrGap) || errors.Is(err, domain.ErrAhead) {
		p.state.OnPush(func(f *bridge.Flow) { f.Gaps++ })
		p.log.Error("events are missing in our own log; trying again", "error", err)
	}
	return err
}

// cursorAnswer is the far end's cursor on our log.
type cursorAnswer struct {
	Deployment string          `json:"deployment"`
	Known      bool            `json:"known"`
	Position   domain.Position `json:"position"`
}

// begin gets the far end's cursor on our log, or sets it if our log lost events.
func (p *pusher) begin(ctx context.Context) error {
	var answer cursorAnswer
	if err := p.call(ctx, http.MethodGet, "cursor", nil, nil, &answer); err != nil {
		return err
	}
	p.remote = answer.Deployment
	if err := p.checkRemote(p.remote); err != nil {
		return err
	}
	if !answer.Known && p.link.from[p.system.System] == fromNow {
		end, err := p.link.parts.Reader.End(ctx, p.system.System)
		if err != nil {
			return err
		}
		if err := p.setCursor(ctx, end, false, &answer); err != nil {
			return err
		}
	}
	_, err := p.link.parts.Reader.Locate(ctx, p.system.System, answer.Position)
	if errors.Is(err, domain.ErrAhead) {
		return p.setBack(ctx, &answer)
	}
	if err != nil {
		return err
	}
	p.at = answer.Position
	p.state.OnPush(func(f *bridge.Flow) { f.Moved(p.at, domain.ImportResult{}) })
	return nil
}

// setBack moves the far end's cursor back to the end of our log, which has lost the events after it.
func (p *pusher) setBack(ctx context.Context, answer *cursorAnswer) error {
	end, err := p.link.parts.Reader.End(ctx, p.system.System)
	if err != nil {
		return err
	}
	p.state.OnPush(func(f *bridge.Flow) { f.Gaps++ })
	p.log.Error("our own log lost events that the far end has; setting its cursor back to our head",
		"imported", answer.Position.String(), "head", end.String())
	if err := p.setCursor(ctx, end, true, answer); err != nil {
		return err
	}
	p.at = end
	return nil
}

func (p *pusher) setCursor(ctx context.Context, at domain.Position, rewind bool, answer *cursorAnswer) error {
	body, err := json.Marshal(map[string]any{"position": at, "rewind": rewind})
	if err != nil {
		return err
	}
	return p.call(ctx, http.MethodPut, "cursor", nil, body, answer)
}

// sendPage sends events of our log.
func (p *pusher) sendPage(ctx context.Context, events []domain.Event, behind uint64) error {
	head := events[len(events)-1].Seq + behind
	for len(events) > 0 {
		n, body, count := p.encodeBatch(events)
		if err := p.send(ctx, events[n-1].Cursor(), head, body, count); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// leftOut counts the events that a batch leaves out, and those in it that are undecodable.
type leftOut struct{ own, filtered, refused int }

// encodeBatch encodes the first n events, as many as fit into one body of NDJSON.
func (p *pusher) encodeBatch(events []domain.Event) (n int, body []byte, count leftOut) {
	for n = range events {
		e := &events[n]
		switch {
		case e.Origin == p.remote:
			count.own++
			continue
		case !p.system.Wants(e.Type):
			count.filtered++
			continue
		}
		imported := e.AsImported(p.link.parts.Deployment)
		line := imported.AppendEnvelope(nil)
		if len(body) > 0 && len(body)+len(line) > maxBody {
			return n, body, count // the next batch gets this one
		}
		if imported.Type != e.Type {
			count.refused++
			p.log.Warn("an event is sent as undecodable", "id", e.ID, "type", e.Type, "position", e.Position.String())
		}
		body = append(append(body, line...), '\n')
	}
	return len(events), body, count
}

// importAnswer is the far end's answer to a batch.
type importAnswer struct {
	Accepted   int             `json:"accepted"`
	Duplicates int             `json:"duplicates"`
	Own        int             `json:"own"`
	Refused    int             `json:"refused"`
	Position   domain.Position `json:"position"`
}

// send sends a batch, and with it moves the far end's cursor to through. An empty body only
// moves the cursor, over events that were left out. head is the seq of our newest event.
func (p *pusher) send(ctx context.Context, through domain.Cursor, head uint64, body []byte, count leftOut) error {
	query := url.Values{"after": {p.at.String()}, "through": {through.Position.String()}}
	var answer importAnswer
	if err := p.call(ctx, http.MethodPost, "events", query, body, &answer); err != nil {
		return err
	}
	p.at = through.Position
	result := domain.ImportResult{Accepted: answer.Accepted, Duplicates: answer.Duplicates, Own: answer.Own + count.own}
	p.state.OnPush(func(f *bridge.Flow) {
		f.Moved(through.Position, result)
		f.Filtered += uint64(count.filtered)
		f.Refused += uint64(count.refused + answer.Refused)
		f.Behind = head - through.Seq
	})
	return nil
}

// problem is the body of the far end's errors.
type problem struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// call makes a request, and repeats it while the far end answers 429.
func (p *pusher) call(ctx context.Context, method, resource string, query url.Values, body []byte, into any) error {
	for {
		wait, err := p.request(ctx, method, resource, query, body, into)
		if wait == 0 {
			return err
		}
		if err := backoff.Sleep(ctx, min(wait, longestWait)); err != nil {
			return err
		}
	}
}

// request makes one request. It returns how long to wait before the next try, or 0.
func (p *pusher) request(
	ctx context.Context, method, resource string, query url.Values, body []byte, into any,
) (wait time.Duration, err error) {
	target := p.link.base.JoinPath("api", "v1", "systems", string(p.system.System), "bridge", resource)
	if query == nil {
		query = url.Values{}
	}
	query.Set("source", p.link.parts.Deployment)
	target.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+p.token)
	request.Header.Set("Content-Type", "application/json")
	if resource == "events" {
		request.Header.Set("Content-Type", "application/x-ndjson")
	}
	response, err := p.link.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, err
	}
	if response.StatusCode == http.StatusOK {
		return 0, json.Unmarshal(text, into)
	}
	var why problem
	_ = json.Unmarshal(text, &why) // a proxy may answer with another body
	switch response.StatusCode {
	case http.StatusTooManyRequests:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return max(time.Duration(seconds)*time.Second, 200*time.Millisecond), nil
	case http.StatusUnauthorized:
		if why.Code == codeExpired {
			return 0, errExpired
		}
		return 0, fmt.Errorf("%w: %s", bridge.ErrRefused, response.Status)
	case http.StatusForbidden:
		return 0, fmt.Errorf("%w: %.200s", bridge.ErrRefused, why.Detail)
	}
	return 0, fmt.Errorf("the far end answered %s: %.80s: %.300s", response.Status, why.Code, why.Detail)
}

// codeExpired is the far end's code for an expired token.
const codeExpired = "token-expired"

var errExpired = errors.New("the token has expired; reading it again")
