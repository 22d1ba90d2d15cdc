package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/wsdial"
)

const (
	subprotocol = "plugcast.v1"
	dialTimeout = 10 * time.Second
	// silence bounds the time without a message of the far end, which sends a heartbeat
	// every 15 s.
	silence = 45 * time.Second
	// answerTimeout bounds the wait for the far end's first frames.
	answerTimeout = 30 * time.Second
	writeTimeout  = 10 * time.Second
	// maxFrame bounds one message of the far end, in bytes. It sends at most 64 KiB, unless
	// one event is larger.
	maxFrame = 8 << 20
	// readAhead is the number of messages that wait for the intake.
	readAhead = 8
)

// frame is a frame of the far end.
type frame struct {
	Event    string
	Position *domain.Position // nil if the frame is not an event of the log
	Data     json.RawMessage
}

// readFrame reads the members of a frame that say what it is; their names must match exactly.
// It accepts anything in the rest, and takes the first of two members with one name: a
// malformed event must not stop the link, and [domain.ParseEnvelope] checks it later.
func readFrame(raw []byte) (f frame, err error) {
	readable := bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	if err := domain.CheckJSONSyntax(readable); err != nil {
		return f, err
	}
	if !domain.IsJSONObject(readable) {
		return f, errors.New("it is not an object")
	}
	var event, position json.RawMessage
	for name, value := range domain.JSONMembers(readable) {
		switch {
		case name == "event" && event == nil:
			event = value
		case name == "position" && position == nil:
			position = value
		case name == "data" && f.Data == nil:
			f.Data = value
		}
	}
	if event != nil {
		err = json.Unmarshal(event, &f.Event)
	}
	if position != nil && err == nil {
		err = json.Unmarshal(position, &f.Position)
	}
	return f, err
}

// connectionStatus is the data of the far end's first frame.
type connectionStatus struct {
	Connected  bool   `json:"connected"`
	Deployment string `json:"deployment"`
}

// joined is the data of the far end's answer to join-system.
type joined struct {
	Position  domain.Position `json:"position"`
	Seq       uint64          `json:"seq"`
	Recovered bool            `json:"recovered"`
}

// puller reads the far end's log over one socket.
type puller struct {
	*session
	conn   *websocket.Conn
	remote string
	at     domain.Cursor // read up to here; owned by the goroutine of read

	// imported is the position up to which the intake has everything; owned by the
	// goroutine of importAll.
	imported domain.Position
}

// pull imports the far end's events until it fails.
func (s *session) pull(ctx context.Context, up *countdown) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends start as well
	defer stop()
	p := &puller{session: s, conn: conn}
	if err := p.start(ctx); err != nil {
		return err
	}
	up.ready(p.remote)
	batches := make(chan []domain.Event, readAhead)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(s.isolated(func() error {
		defer close(batches)
		return p.read(ctx, batches)
	}))
	group.Go(s.isolated(func() error { return p.importAll(ctx, batches) }))
	// Closed only after the group has its first error: read fails because of the close, and
	// pull must return the cause.
	ending := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer ending()
	return group.Wait()
}

func (s *session) dial(ctx context.Context) (*websocket.Conn, error) {
	target := *s.link.base
	target.Scheme = map[string]string{"http": "ws", "https": "wss"}[target.Scheme]
	target = *target.JoinPath("ws")
	conn, response, err := wsdial.Dial(ctx, s.link.dialer, target.String(), http.Header{"Authorization": {"Bearer " + s.token}})
	if err == nil {
		conn.SetReadLimit(maxFrame)
		return conn, nil
	}
	if response == nil {
		return nil, err
	}
	if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
		return nil, fmt.Errorf("%w: %s", bridge.ErrRefused, response.Status)
	}
	return nil, fmt.Errorf("the far end answered %s", response.Status)
}

// start identifies the far end, and joins its system at the cursor on its log.
func (p *puller) start(ctx context.Context) error {
	var hello connectionStatus
	if err := p.expect("connection-status", &hello); err != nil {
		return err
	}
	if !hello.Connected {
		return p.rejection()
	}
	p.remote = hello.Deployment
	if err := p.checkRemote(p.remote); err != nil {
		return err
	}
	intake, system := p.link.parts.Intake, p.system.System
	at, known, err := intake.Cursor(ctx, system, p.remote)
	if err != nil {
		return err
	}
	var after *domain.Position
	if known || p.link.from[system] != fromNow {
		after = &at // the beginning of the log, if there is no cursor
	}
	answer, err := p.join(after)
	if err != nil {
		return err
	}
	if after == nil {
		if err := intake.SkipTo(ctx, system, p.remote, answer.Position); err != nil {
			return err
		}
		at = answer.Position
	} else if !answer.Recovered {
		p.state.OnPull(func(f *bridge.Flow) { f.Gaps++ })
		p.log.Error("the far end lost events that were imported here; importing on from its head",
			"imported", at.String(), "head", answer.Position.String())
		if err := intake.Rewind(ctx, system, p.remote, answer.Position); err != nil {
			return err
		}
		return errors.New("the far end's log was set back; joining again at its head")
	}
	p.imported = at
	p.at = domain.Cursor{Position: at, Seq: answer.Seq}
	p.state.OnPull(func(f *bridge.Flow) { f.Moved(at, domain.ImportResult{}) })
	return nil
}

func (p *puller) join(after *domain.Position) (joined, error) {
	data := map[string]any{"systemId": p.system.System}
	if after != nil {
		data["after"] = after
	}
	_ = p.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	var answer joined
	if err := p.conn.WriteJSON(map[string]any{"event": "join-system", "id": 1, "data": data}); err != nil {
		return answer, err
	}
	return answer, p.expect("joined", &answer)
}

// expect reads the next frame, which must have the given name, and decodes its data.
func (p *puller) expect(event string, into any) error {
	_ = p.conn.SetReadDeadline(time.Now().Add(answerTimeout))
	for {
		_, message, err := p.conn.ReadMessage()
		if err != nil {
			return closeError(err)
		}
		f, err := readFrame(message)
		if err != nil {
			return fmt.Errorf("the far end sent something other than a frame instead of %s", event)
		}
		switch f.Event {
		case event:
			return json.Unmarshal(f.Data, into)
		case "heartbeat":
		default:
			return controlError(&f)
		}
	}
}

// rejection returns why the far end rejects the socket: it sends the reason in a frame, and
// then closes. Not every reason is a refusal: the token may only have expired, or the far end
// could not check it.
func (p *puller) rejection() error {
	_ = p.conn.SetReadDeadline(time.Now().Add(answerTimeout))
	var why problem
	for {
		_, message, err := p.conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("%w: %.200s", closeError(err), why.Detail)
		}
		f, err := readFrame(message)
		if err != nil {
			continue
		}
		switch f.Event {
		case "error":
			if _ = json.Unmarshal(f.Data, &why); why.Code == codeExpired {
				return errExpired
			}
		case "forced-disconnect":
			return controlError(&f)
		}
	}
}

// controlError returns the error that a frame other than an event means, or nil.
func controlError(f *frame) error {
	var data struct {
		Code      string `json:"code"`
		Detail    string `json:"detail"`
		Reason    string `json:"reason"`
		Reconnect bool   `json:"reconnect"`
	}
	_ = json.Unmarshal(f.Data, &data) // absent members say nothing
	switch {
	case f.Event == "error" && data.Code == string(domain.CodeForbidden):
		return fmt.Errorf("%w: %.200s", bridge.ErrRefused, data.Detail)
	case f.Event == "error":
		return fmt.Errorf("the far end answered %.80s: %.200s", data.Code, data.Detail)
	case f.Event == "forced-disconnect" && !data.Reconnect:
		return fmt.Errorf("%w: disconnected by the far end: %.200s", bridge.ErrRefused, data.Reason)
	case f.Event == "forced-disconnect":
		return fmt.Errorf("disconnected by the far end: %.200s", data.Reason)
	case f.Event == "joined": // not an answer, but a resync
		return errors.New("the far end lost its newest events")
	case f.Event == "left":
		return errors.New("the far end ended the subscription")
	}
	return nil
}

// Close codes of the far end: see docs/protocol.md.
const (
	closeToken        = 4401
	closeForbidden    = 4403
	closeDisconnected = 4409
	closeFlood        = 4429 // to be tried again after a minute
)

// closeError converts the far end's close codes to errors. The runner's long pause after
// ErrRefused is what these codes ask for.
func closeError(err error) error {
	end := new(websocket.CloseError)
	if !errors.As(err, &end) {
		return err
	}
	switch end.Code {
	case closeToken, closeForbidden, closeDisconnected, closeFlood:
		return fmt.Errorf("%w: closed with %d %.100s", bridge.ErrRefused, end.Code, end.Text)
	}
	return fmt.Errorf("the far end closed with %d %.100s", end.Code, end.Text)
}

// read reads messages, and sends their events to batches, no faster than importAll takes them.
func (p *puller) read(ctx context.Context, batches chan<- []domain.Event) error {
	p.conn.SetPingHandler(func(data string) error {
		_ = p.conn.SetReadDeadline(time.Now().Add(silence))
		return p.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(writeTimeout))
	})
	for {
		_ = p.conn.SetReadDeadline(time.Now().Add(silence))
		_, message, err := p.conn.ReadMessage()
		if err != nil {
			return closeError(err)
		}
		events, err := p.frames(message)
		if len(events) > 0 {
			select {
			case batches <- events:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err != nil {
			return err
		}
	}
}

// frames reads a message, which is one frame or an array of frames, and returns its events. With
// an error it returns the events before it.
func (p *puller) frames(message []byte) (events []domain.Event, err error) {
	frames := []json.RawMessage{message}
	if len(message) > 0 && message[0] == '[' {
		if err := json.Unmarshal(message, &frames); err != nil {
			return nil, errors.New("the far end sent an array of frames that is not JSON")
		}
	}
	for _, raw := range frames {
		f, err := readFrame(raw)
		if err != nil {
			return events, errors.New("the far end sent a frame that is not JSON")
		}
		switch {
		case f.Position != nil:
			e, err := domain.ParseEnvelope(raw)
			if err != nil {
				salvaged, ok := domain.SalvageEnvelope(raw, p.system.System, err)
				if !ok {
					return events, fmt.Errorf("the far end sent an event without a position or seq, after %s: %w", p.at, err)
				}
				p.log.Warn("an event of the far end cannot be read; stored as undecodable",
					"position", salvaged.Position.String(), "error", err)
				p.state.OnPull(func(f *bridge.Flow) { f.Refused++ })
				e = salvaged
			}
			if e.Seq != p.at.Seq+1 {
				p.state.OnPull(func(f *bridge.Flow) { f.Gaps++ })
				p.log.Error("events of the far end are missing; reading again from its log", "after", p.at.String(), "got", e.Cursor().String())
				return events, fmt.Errorf("%w after %s, before %s", domain.ErrGap, p.at, e.Cursor())
			}
			p.at = e.Cursor()
			events = append(events, e)
		case f.Event == "heartbeat":
			p.noteHead(f.Data)
		default:
			if err := controlError(&f); err != nil {
				return events, err
			}
		}
	}
	return events, nil
}

// noteHead notes from a heartbeat how many events of the far end are still to come.
func (p *puller) noteHead(data json.RawMessage) {
	var beat struct {
		Rooms map[domain.SystemID]domain.Cursor `json:"rooms"`
	}
	if json.Unmarshal(data, &beat) != nil {
		return
	}
	head, at := beat.Rooms[p.system.System].Seq, p.at.Seq
	p.state.OnPull(func(f *bridge.Flow) { f.Behind = max(head, at) - at })
}

// importAll imports the events that read sends, in batches.
func (p *puller) importAll(ctx context.Context, batches <-chan []domain.Event) error {
	for {
		var events []domain.Event
		select {
		case more, open := <-batches:
			if !open {
				return nil // read returns the error
			}
			events = more
		case <-ctx.Done():
			return ctx.Err()
		}
		events = fillBatch(events, batches)
		for len(events) > 0 {
			n := min(len(events), domain.MaxImportBatch)
			if err := p.importBatch(ctx, events[:n]); err != nil {
				return err
			}
			events = events[n:]
		}
	}
}

// fillBatch adds the events that already wait, until there are about
// [domain.MaxImportBatch] events or maxBody bytes.
func fillBatch(events []domain.Event, batches <-chan []domain.Event) []domain.Event {
	size := sizeOf(events)
	for len(events) < domain.MaxImportBatch && size < maxBody {
		select {
		case more, open := <-batches:
			if !open {
				return events
			}
			events = append(events, more...)
			size += sizeOf(more)
		default:
			return events
		}
	}
	return events
}

// sizeOf returns about how many bytes the events have.
func sizeOf(events []domain.Event) (size int) {
	for i := range events {
		size += len(events[i].Data)
	}
	return size
}

func (p *puller) importBatch(ctx context.Context, events []domain.Event) error {
	b := domain.ImportBatch{
		System: p.system.System, Source: p.remote, After: p.imported, Through: events[len(events)-1].Position,
		Events: make([]domain.Event, 0, len(events)),
	}
	refused := 0
	for i := range events {
		if !p.system.Wants(events[i].Type) {
			continue
		}
		imported := events[i].AsImported(p.remote)
		if imported.Type != events[i].Type {
			refused++
			p.log.Warn("an event of the far end does not match its type; stored as undecodable", "id", events[i].ID, "type", events[i].Type)
		}
		b.Events = append(b.Events, imported)
	}
	result, err := p.link.parts.Intake.Import(ctx, b)
	if err != nil {
		return err
	}
	p.imported = b.Through
	p.state.OnPull(func(f *bridge.Flow) {
		f.Moved(b.Through, result)
		f.Filtered += uint64(len(events) - len(b.Events))
		f.Refused += uint64(refused + result.Refused)
	})
	return nil
}
