package sioclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/semaphore"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge/wsdial"
	"github.com/plugcast/plugcast/transport/socketio/packet"
)

// Engine.IO packet types, the first character of a text frame.
const (
	engineOpen    = '0'
	engineClose   = '1'
	enginePing    = '2'
	enginePong    = '3'
	engineMessage = '4'
)

// maxAttachments bounds the binary frames that one packet may announce.
const maxAttachments = 64

// Event is an event that the server emitted.
type Event struct {
	Name   string
	Args   []json.RawMessage // without the offset; in a binary event with placeholders for the binary values
	Binary bool              // it had attachments, which the client discards
	Offset string            // its offset in the server's session, or ""
	Ack    string            // the argument for [Conn.Acknowledge], if the server asks for an acknowledgement
	At     time.Time         // when it arrived

	size int64 // approximate memory while it waits, in bytes
}

// Conn is an open connection to a namespace. It is safe for concurrent use.
type Conn struct {
	ws        *websocket.Conn
	config    Config
	namespace string
	opened    handshake
	session   connected
	recovered bool

	inbox   chan Event
	room    *semaphore.Weighted // free bytes of inbox
	waiting atomic.Int64        // events that arrived and that Events has not yielded

	writes chan write
	pongs  chan struct{}
	synced chan struct{}

	closing context.Context // ends with the connection; its cause is the reason
	end     context.CancelCauseFunc
	working sync.WaitGroup

	heard     atomic.Int64  // when the last frame arrived, in nanoseconds since 1970
	written   atomic.Uint64 // number of events that were written
	ponged    atomic.Uint64 // value of written when the last pong was written
	confirmed atomic.Uint64 // value of ponged when the last ping arrived

	mu     sync.Mutex
	nextID uint64
	acks   map[string]chan []json.RawMessage

	assembly packet.Assembly // owned by the goroutine of read
}

// handshake is the server's first packet.
type handshake struct {
	SID          string `json:"sid"`
	PingInterval int64  `json:"pingInterval"` // milliseconds
	PingTimeout  int64  `json:"pingTimeout"`  // milliseconds
	MaxPayload   int    `json:"maxPayload"`   // bytes; none when 0
}

// connected is the server's answer to CONNECT.
type connected struct {
	SID string `json:"sid"`
	PID string `json:"pid"`
}

// write is a frame for the writing goroutine.
type write struct {
	frame []byte
	event bool
	done  chan error // gets one value: nil once the operating system has the whole frame
}

// Dial connects to the server and its namespace. It fails with a [*RefusedError] if the server
// refuses the namespace. The connection lives until [Conn.Close], or until it breaks; ctx
// bounds only Dial itself.
func Dial(ctx context.Context, cfg Config, resume Session) (*Conn, error) {
	cfg = cfg.withDefaults()
	address, namespace, err := cfg.target()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	auth := map[string]json.RawMessage{}
	if cfg.Auth != nil {
		if auth, err = cfg.Auth(ctx); err != nil {
			return nil, fmt.Errorf("sioclient: auth: %w", err)
		}
	}
	dialer := websocket.Dialer{Proxy: http.ProxyFromEnvironment, TLSClientConfig: cfg.TLS, HandshakeTimeout: cfg.Timeout}
	ws, response, err := wsdial.Dial(ctx, dialer, address, cfg.Header)
	if response != nil && response.Body != nil {
		defer func() { _ = response.Body.Close() }()
	}
	if err != nil {
		if response != nil {
			return nil, fmt.Errorf("sioclient: dial: %w (HTTP %d)", err, response.StatusCode)
		}
		return nil, fmt.Errorf("sioclient: dial: %w", err)
	}
	c := &Conn{
		ws: ws, config: cfg, namespace: namespace,
		inbox: make(chan Event, cfg.Queue), room: semaphore.NewWeighted(cfg.maxWaiting()),
		writes: make(chan write), pongs: make(chan struct{}, 1), synced: make(chan struct{}, 1),
		assembly: packet.Assembly{MaxAttachments: maxAttachments}, acks: map[string]chan []json.RawMessage{},
	}
	c.closing, c.end = context.WithCancelCause(context.Background())
	ws.SetReadLimit(cfg.MaxFrame)
	stop := context.AfterFunc(ctx, func() { _ = ws.SetReadDeadline(time.Now()) })
	early, err := c.connect(auth, resume)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = ws.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("sioclient: connect: %w", ctx.Err())
		}
		return nil, err
	}
	c.recovered = resume.PID != "" && resume.PID == c.session.PID
	c.working.Go(func() { c.read(early) })
	c.working.Go(c.write)
	return c, nil
}

// connect does the handshakes of Engine.IO and Socket.IO. It returns the packets that arrived
// before the answer to CONNECT, because a server may send events before it.
func (c *Conn) connect(auth map[string]json.RawMessage, resume Session) (early []packet.Packet, err error) {
	raw, err := c.frame()
	if err != nil {
		return nil, fmt.Errorf("sioclient: open: %w", err)
	}
	if len(raw) == 0 || raw[0] != engineOpen || json.Unmarshal(raw[1:], &c.opened) != nil || c.opened.SID == "" || c.opened.PingInterval <= 0 {
		return nil, errors.New("sioclient: open: the server does not speak Engine.IO 4")
	}
	if err := c.say(c.connectPacket(auth, resume)); err != nil {
		return nil, fmt.Errorf("sioclient: connect: %w", err)
	}
	var size int64
	for {
		raw, err := c.frame()
		if err != nil {
			return nil, fmt.Errorf("sioclient: connect: %w", err)
		}
		switch {
		case len(raw) == 1 && raw[0] == enginePing:
			err = c.say([]byte{enginePong})
		case len(raw) > 0 && raw[0] == engineMessage:
			p, done, bad := c.assembly.Text(raw[1:])
			if err = bad; err != nil || !done || p.Namespace != c.namespace {
				break
			}
			switch p.Type {
			case packet.Connect:
				if json.Unmarshal(p.Data, &c.session) != nil || c.session.SID == "" {
					return nil, errors.New("sioclient: connect: the server does not speak Socket.IO 5")
				}
				if !isToken(c.session.PID) {
					c.session.PID = "" // treat the server as one that keeps no state
				}
				return early, nil
			case packet.ConnectError:
				return nil, refusal(p.Data)
			default:
				early = append(early, p)
				size += int64(len(p.Data))
				if len(early) > c.config.Queue || size > c.config.maxWaiting() {
					err = errors.New("too many packets arrived before the answer")
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("sioclient: connect: %w", err)
		}
	}
}

func (c *Conn) connectPacket(auth map[string]json.RawMessage, resume Session) []byte {
	all := make(map[string]any, len(auth)+2)
	for name, value := range auth {
		all[name] = value
	}
	if resume.PID != "" {
		all["pid"] = resume.PID
		if resume.Offset != "" {
			all["offset"] = resume.Offset
		}
	}
	p := packet.Packet{Type: packet.Connect, Namespace: c.namespace}
	if len(all) > 0 {
		p.Data, _ = domain.EncodeJSON(all) // raw JSON and strings can always be encoded
	}
	return packet.Append([]byte{engineMessage}, &p)
}

// refusal returns the error for a CONNECT_ERROR. It bounds the message, which the server wrote.
func refusal(data []byte) error {
	var answer struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(data, &answer)
	const most = 200
	if answer.Message = domain.TruncateLine(answer.Message, most); answer.Message == "" {
		answer.Message = "no reason given"
	}
	return &RefusedError{Message: answer.Message}
}

var errBinary = errors.New("sioclient: an unexpected binary frame")

// frame reads the next frame, which must be text.
func (c *Conn) frame() ([]byte, error) {
	kind, raw, err := c.anyFrame()
	if err == nil && kind != websocket.TextMessage {
		err = errBinary
	}
	return raw, err
}

func (c *Conn) anyFrame() (kind int, raw []byte, err error) {
	kind, raw, err = c.ws.ReadMessage()
	if err == nil {
		c.heard.Store(time.Now().UnixNano())
	}
	return kind, raw, err
}

func (c *Conn) say(frame []byte) error {
	if err := c.ws.SetWriteDeadline(time.Now().Add(c.config.Timeout)); err != nil {
		return err
	}
	return c.ws.WriteMessage(websocket.TextMessage, frame)
}

// read handles the server's packets until the connection ends.
func (c *Conn) read(early []packet.Packet) {
	defer close(c.inbox)
	for i := range early {
		if err := c.handle(early[i]); err != nil {
			c.end(err)
			return
		}
	}
	for {
		if err := c.readOne(); err != nil {
			c.end(err)
			_ = c.ws.Close() // ends a write that is under way
			return
		}
	}
}

// patience is the time without a frame after which the server is given up, because it should
// have sent a ping.
func (c *Conn) patience() time.Duration {
	return time.Duration(c.opened.PingInterval+c.opened.PingTimeout) * time.Millisecond
}

func (c *Conn) readOne() error {
	if err := c.ws.SetReadDeadline(time.Now().Add(c.patience())); err != nil {
		return err
	}
	kind, raw, err := c.anyFrame()
	switch {
	case err != nil:
		return fmt.Errorf("sioclient: read: %w", err)
	case kind == websocket.BinaryMessage:
		p, done, err := c.assembly.Binary(nil) // the client discards attachments
		if err != nil || !done {
			return err
		}
		return c.handle(p)
	case len(raw) == 0:
		return nil
	}
	switch raw[0] {
	case enginePing:
		// The Node server sends the next ping only after it has read the last pong, and so
		// everything that was written before that pong.
		c.confirmed.Store(c.ponged.Load())
		select {
		case c.pongs <- struct{}{}:
		default:
		}
		return nil
	case engineClose:
		return ErrDisconnected
	case engineMessage:
		p, done, err := c.assembly.Text(raw[1:])
		if err != nil || !done {
			return err
		}
		return c.handle(p)
	default:
		return nil // a noop, or a packet type of a later version
	}
}

// handle handles a packet. It ignores those of other namespaces, except the answer to [Conn.Sync].
func (c *Conn) handle(p packet.Packet) error {
	if p.Namespace != c.namespace {
		if p.Namespace == syncNamespace {
			select {
			case c.synced <- struct{}{}:
			default:
			}
		}
		return nil
	}
	switch p.Type {
	case packet.Disconnect:
		return ErrDisconnected
	case packet.Event, packet.BinaryEvent:
		name, args, err := p.Arguments()
		if err != nil {
			return err
		}
		e := Event{Name: name, Args: args, Binary: p.Type == packet.BinaryEvent, Ack: p.ID, At: c.LastHeard()}
		e.takeOffset(c.session.PID)
		return c.enqueue(e, len(p.Data)+len(args)*argSize)
	case packet.Ack, packet.BinaryAck:
		_, args, err := p.Arguments()
		if err != nil {
			return err
		}
		c.acknowledged(p.ID, args)
	}
	return nil
}

// argSize is the approximate memory of an argument besides its text, in bytes.
const argSize = 24

// enqueue adds an event to the inbox, once there is room for it.
func (c *Conn) enqueue(e Event, size int) error {
	e.size = min(int64(size), c.config.maxWaiting())
	c.waiting.Add(1)
	if c.room.Acquire(c.closing, e.size) != nil {
		return context.Cause(c.closing)
	}
	select {
	case c.inbox <- e:
		return nil
	case <-c.closing.Done():
		return context.Cause(c.closing)
	}
}

// takeOffset moves the offset from the arguments to e.Offset. A server that keeps connection
// state adds it as the last argument, a string, to each event that asks for no acknowledgement.
func (e *Event) takeOffset(pid string) {
	if pid == "" || len(e.Args) == 0 || e.Ack != "" {
		return
	}
	var offset string
	if last := len(e.Args) - 1; json.Unmarshal(e.Args[last], &offset) == nil && isToken(offset) {
		e.Offset, e.Args = offset, e.Args[:last]
	}
}

// isToken reports whether a text can be a private id or an offset. Callers store it often, as
// text, so it must be short and valid.
func isToken(s string) bool {
	return s != "" && len(s) <= 256 && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// write writes frames and pongs until the connection ends.
func (c *Conn) write() {
	for {
		var err error
		select {
		case <-c.closing.Done():
			return
		case <-c.pongs:
			// Counted before the pong is written: it does not confirm later writes.
			mark := c.written.Load()
			if err = c.say([]byte{enginePong}); err == nil {
				c.ponged.Store(mark)
			}
		case w := <-c.writes:
			if err = c.say(w.frame); err == nil && w.event {
				c.written.Add(1)
			}
			w.done <- err
		}
		if err != nil {
			c.end(fmt.Errorf("sioclient: write: %w", err))
			_ = c.ws.Close() // ends read
			return
		}
	}
}
