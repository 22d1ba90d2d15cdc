package sioclient

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/socketio/packet"
)

// Session is what a next connection may resume from, when offset is that of the
// last event which was taken. It is zero when the server keeps no state.
func (c *Conn) Session(offset string) Session {
	if c.session.PID == "" {
		return Session{}
	}
	return Session{PID: c.session.PID, Offset: offset}
}

// Recovered tells that the server took up the session that was to be resumed, and
// sends what was missed since its offset.
func (c *Conn) Recovered() bool { return c.recovered }

// SocketID is how the server calls this connection.
func (c *Conn) SocketID() string { return c.session.SID }

// Events gives what the server emits, in order, until the connection has ended and
// all that came is taken; [Conn.Err] says why it has. It is for one loop at a time.
func (c *Conn) Events() iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for e := range c.inbox {
			c.room.Release(e.size)
			c.waiting.Add(-1)
			if !yield(e) {
				return
			}
		}
	}
}

// Waiting is how many events have come and were not taken.
func (c *Conn) Waiting() int { return int(c.waiting.Load()) }

// Done is closed when the connection has ended. Events may still wait.
func (c *Conn) Done() <-chan struct{} { return c.closing.Done() }

// Err is why the connection ended, or nil.
func (c *Conn) Err() error { return context.Cause(c.closing) }

// LastHeard is when the last frame came.
func (c *Conn) LastHeard() time.Time { return time.Unix(0, c.heard.Load()) }

// Written is how many events were written, and Confirmed how many of them the
// server has read for sure, as its heartbeat tells. The rest may be lost when the
// connection breaks.
func (c *Conn) Written() uint64 { return c.written.Load() }

// Confirmed is described at [Conn.Written].
func (c *Conn) Confirmed() uint64 { return c.confirmed.Load() }

// Emit writes an event and returns when the operating system has it.
func (c *Conn) Emit(ctx context.Context, name string, args ...any) error {
	return c.emit(ctx, "", name, args)
}

// EmitAck writes an event that asks for an acknowledgement, and returns when the
// operating system has it. The answer's arguments come over the channel, once; or
// never, when the connection ends first: watch Done as well.
func (c *Conn) EmitAck(ctx context.Context, name string, args ...any) (<-chan []json.RawMessage, error) {
	answer := make(chan []json.RawMessage, 1)
	c.mu.Lock()
	if c.acks == nil { // the connection is closed
		c.mu.Unlock()
		return nil, c.Err()
	}
	id := strconv.FormatUint(c.nextID, 10)
	c.nextID++
	c.acks[id] = answer
	c.mu.Unlock()
	if err := c.emit(ctx, id, name, args); err != nil {
		c.forget(id)
		return nil, err
	}
	return answer, nil
}

// Acknowledge answers an event that asked for it.
func (c *Conn) Acknowledge(ctx context.Context, id string, args ...any) error {
	if args == nil {
		args = []any{}
	}
	return c.send(ctx, packet.Packet{Type: packet.Ack, Namespace: c.namespace, ID: id}, args)
}

func (c *Conn) emit(ctx context.Context, id string, name string, args []any) error {
	return c.send(ctx, packet.Packet{Type: packet.Event, Namespace: c.namespace, ID: id}, append([]any{name}, args...))
}

func (c *Conn) send(ctx context.Context, p packet.Packet, args []any) error {
	if args != nil {
		var err error
		if p.Data, err = domain.EncodeJSON(args); err != nil {
			return fmt.Errorf("sioclient: emit: %w", err)
		}
	}
	w := write{frame: packet.Append([]byte{engineMessage}, &p), event: p.Type == packet.Event, done: make(chan error, 1)}
	if c.opened.MaxPayload > 0 && len(w.frame) > c.opened.MaxPayload {
		return ErrTooLarge
	}
	select {
	case c.writes <- w:
	case <-c.closing.Done():
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	// The writer always says what became of it, within its timeout: what it wrote just
	// before the connection ended must not pass for not written.
	if err := <-w.done; err != nil {
		return fmt.Errorf("sioclient: write: %w", err)
	}
	return nil
}

func (c *Conn) forget(id string) {
	c.mu.Lock()
	delete(c.acks, id)
	c.mu.Unlock()
}

func (c *Conn) acknowledged(id string, args []json.RawMessage) {
	c.mu.Lock()
	answer := c.acks[id]
	delete(c.acks, id)
	c.mu.Unlock()
	if answer != nil {
		answer <- args
	}
}

// syncNamespace is one that no server has.
const syncNamespace = "/plugcast-sync"

// Sync returns when the server has taken everything that was written before. It
// asks for a namespace that is not there: a server says so at once and in order,
// and that costs it nothing. One Sync at a time is possible.
//
// It is for the moment before Close. The Node server passes events on after the
// turn in which it read them, and drops those that were read together with the
// end of the connection.
func (c *Conn) Sync(ctx context.Context) error {
	mark := c.written.Load()
	if err := c.send(ctx, packet.Packet{Type: packet.Connect, Namespace: syncNamespace}, nil); err != nil {
		return err
	}
	select {
	case <-c.synced:
		c.confirmed.Store(max(mark, c.confirmed.Load()))
		return nil
	case <-c.closing.Done():
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Abort ends the connection at once, also what is being written, which has not gone
// out then. It waits for nothing; [Conn.Close] is still to be called.
func (c *Conn) Abort() {
	c.end(ErrClosed)
	_ = c.ws.Close()
}

// Close ends the connection and waits for what runs. It does not take leave of the
// namespace: a server that keeps state would forget the session at once. What came
// before the end stays in Events. Closing twice is no error.
func (c *Conn) Close() {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = c.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)) // fails when it is broken already
	c.end(ErrClosed)
	_ = c.ws.Close()
	c.working.Wait()
	c.mu.Lock()
	c.acks = nil
	c.mu.Unlock()
}
