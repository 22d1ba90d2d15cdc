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

// Session returns the session for a later connection to resume after the event with the given
// offset. It is zero if the server keeps no connection state.
func (c *Conn) Session(offset string) Session {
	if c.session.PID == "" {
		return Session{}
	}
	return Session{PID: c.session.PID, Offset: offset}
}

// Recovered reports whether the server resumed the session that Dial asked for. Then it sends
// the events since the session's offset.
func (c *Conn) Recovered() bool { return c.recovered }

// SocketID returns the server's public id of this connection.
func (c *Conn) SocketID() string { return c.session.SID }

// Events yields the events that the server emits, in order, until the connection has ended
// and all that arrived were yielded; then [Conn.Err] returns the reason. Only one loop at a time
// may use it.
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

// Waiting returns the number of events that arrived and were not yielded yet.
func (c *Conn) Waiting() int { return int(c.waiting.Load()) }

// Done returns a channel that is closed when the connection ends. Events may still wait then.
func (c *Conn) Done() <-chan struct{} { return c.closing.Done() }

// Err returns why the connection ended, or nil while it is open.
func (c *Conn) Err() error { return context.Cause(c.closing) }

// LastHeard returns when the last frame arrived.
func (c *Conn) LastHeard() time.Time { return time.Unix(0, c.heard.Load()) }

// Written returns the number of events that were written. If the connection breaks, the server
// may not have those that [Conn.Confirmed] does not count.
func (c *Conn) Written() uint64 { return c.written.Load() }

// Confirmed returns the number of written events that the server has certainly read, as its
// pings show.
func (c *Conn) Confirmed() uint64 { return c.confirmed.Load() }

// Emit writes an event, and returns once the operating system has it. It fails with
// [ErrTooLarge] or the error of the connection.
func (c *Conn) Emit(ctx context.Context, name string, args ...any) error {
	return c.emit(ctx, "", name, args)
}

// EmitAck is Emit for an event that asks for an acknowledgement. The channel gets the answer's
// arguments, once. It gets nothing if the connection ends first, so watch Done too.
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

// Acknowledge acknowledges an event that the server emitted, by its Ack.
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
	// No select on closing here: write always sends the result, within its timeout, and a
	// frame that it wrote just before the end must count as written.
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

// syncNamespace is a namespace that no server has.
const syncNamespace = "/plugcast-sync"

// Sync waits until the server has handled everything that was written before. It asks for a
// namespace that does not exist, which the server refuses at once and in order. Only one Sync
// may run at a time.
//
// Call it before Close: the Node server handles events one turn after it read them, and drops
// those that it read together with the end of the connection.
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

// Abort ends the connection at once, and makes a write that is under way fail. It waits for
// nothing; the caller still calls [Conn.Close].
func (c *Conn) Abort() {
	c.end(ErrClosed)
	_ = c.ws.Close()
}

// Close ends the connection and waits for its goroutines. It sends no DISCONNECT packet, after
// which a server would forget the session at once. Events still yields the events that arrived
// before. Close may be called more than once.
func (c *Conn) Close() {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = c.ws.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)) // fails if the connection is broken
	c.end(ErrClosed)
	_ = c.ws.Close()
	c.working.Wait()
	c.mu.Lock()
	c.acks = nil
	c.mu.Unlock()
}
