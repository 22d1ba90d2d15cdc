package legacy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
)

var errBinary = errors.New("it has binary attachments")

// pageSize is how many events are emitted at a time, and how many wait for their
// acknowledgement at most.
const pageSize = 64

// push emits what our log has after the position that was kept, until the
// connection ends.
func (o *outbox) push(ctx context.Context) error {
	defer o.sync(ctx)
	after := o.saved.get().Pushed
	if after == nil { // from now on
		end, err := o.Reader.End(ctx, o.system.System.System)
		if err != nil {
			return fmt.Errorf("legacy: where our log is: %w", err)
		}
		after = &end
		o.saved.change(func(k *SavedState) { k.Pushed = after })
	}
	// Before anything goes over: that we began, or a restart would begin later and
	// leave out what is between; and that a connection is open, or a page that goes
	// over twice after a crash would not be reported.
	if err := o.save(ctx, o.state); err != nil {
		return err
	}
	from, err := o.locate(ctx, *after)
	if err != nil {
		return err
	}
	if from != *after {
		o.setPushed(from) // or it would be lost again, and reported, each time
	}
	return o.follow(ctx, o.conn, from, func(events []domain.Event) error {
		if err := o.emit(ctx, events); err != nil {
			return err
		}
		o.setPushed(events[len(events)-1].Position)
		return o.save(ctx, o.state)
	})
}

// syncFor bounds how long the end of a connection waits for the server.
const syncFor = time.Second

// sync sees to it that what was written arrives before we close the connection.
func (o *outbox) sync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncFor)
	defer cancel()
	_ = o.conn.Sync(ctx) // what it does not confirm is reported
}

// moved says that everything up to a position went over.
func (o *outbox) setPushed(to domain.Position) {
	o.saved.change(func(k *SavedState) { k.Pushed = &to })
}

// follow gives fn the events of the system after a position, page by page, until the
// connection ends.
func (s *systemLink) follow(ctx context.Context, conn *sioclient.Conn, after domain.Position, fn func([]domain.Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-conn.Done():
			cancel(conn.Err())
		case <-ctx.Done():
		}
	}()
	return s.Reader.Follow(ctx, s.system.System.System, after, func(events []domain.Event, _ uint64) error {
		for page := range slices.Chunk(events, pageSize) {
			if err := fn(page); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return nil
	})
}

// locate finds a position in our log, and returns from where to go on. What is
// beyond the log's end was lost here, with a Redis: we go on from what there is, and
// say so.
func (s *systemLink) locate(ctx context.Context, after domain.Position) (from domain.Position, err error) {
	system := s.system.System.System
	from = after
	_, err = s.Reader.Locate(ctx, system, after)
	if errors.Is(err, domain.ErrAhead) {
		if from, err = s.Reader.End(ctx, system); err == nil {
			s.reporter.add(domain.Finding{
				Kind: domain.FindingMaybeLost, After: &from, Through: &after,
				Detail: "our own log lost what it had up to here: what was appended meanwhile may not have gone over",
			})
		}
	}
	if err != nil {
		return from, fmt.Errorf("legacy: find where we are in our log: %w", err)
	}
	return from, nil
}

// outbox is what was emitted over one connection and is not certain to have got
// there.
type outbox struct {
	*systemLink
	conn        *sioclient.Conn
	state       *bridge.State
	unconfirmed []unconfirmed // oldest first
}

// unconfirmed is one emission, or some that followed each other.
type unconfirmed struct {
	number   uint64 // of the last among the events that were written over this connection
	first    domain.Position
	position domain.Position          // of the last
	count    uint64                   // of emissions
	answer   <-chan []json.RawMessage // of an acknowledgement, or nil
	event    *domain.Event            // that it is for, or nil
}

// emit emits a page, and with acknowledgements waits for them.
func (o *outbox) emit(ctx context.Context, events []domain.Event) error {
	for i := range events {
		e := &events[i]
		if err := o.emitOne(ctx, e); err != nil {
			return err
		}
		if o.config.Delivery == Written {
			o.setPushed(e.Position)
		}
	}
	if o.config.Delivery == Written {
		o.dropConfirmed()
		return nil
	}
	for len(o.unconfirmed) > 0 {
		u := o.unconfirmed[0]
		args, err := o.await(ctx, o.conn, u.answer)
		if err != nil {
			return err
		}
		o.acknowledged(u, args)
	}
	return nil
}

// acknowledged takes the answer to the oldest emission.
func (o *outbox) acknowledged(u unconfirmed, args []json.RawMessage) {
	if why, refused := refusal(args); refused {
		o.reporter.add(domain.Finding{
			Kind: domain.FindingRefused, Event: u.event.Type, Device: u.event.Device(), Through: &u.position, Here: u.event.Data, Detail: why,
		})
	}
	o.unconfirmed = o.unconfirmed[1:]
	o.setPushed(u.position)
}

// emitOne emits an event, unless it came over this link or is none of those that
// go over.
func (o *outbox) emitOne(ctx context.Context, e *domain.Event) error {
	switch {
	case e.Origin == o.origin():
		o.state.OnPush(func(f *bridge.Flow) { f.Moved(e.Position, domain.ImportResult{Own: 1}) })
		return nil
	case !forwards(e.Type) || !o.system.Wants(e.Type):
		o.state.OnPush(func(f *bridge.Flow) { f.Moved(e.Position, domain.ImportResult{}); f.Filtered++ })
		return nil
	}
	payload, err := payloadOf(e)
	if err == nil {
		err = o.write(ctx, e, payload)
	}
	switch {
	case err == nil:
		o.reporter.count("pushed", 1)
		o.state.OnPush(func(f *bridge.Flow) { f.Moved(e.Position, domain.ImportResult{Accepted: 1}) })
		return nil
	case payload == nil || errors.Is(err, sioclient.ErrTooLarge):
		o.reporter.add(domain.Finding{Kind: domain.FindingRefused, Event: e.Type, Device: e.Device(), Through: &e.Position, Detail: err.Error()})
		o.state.OnPush(func(f *bridge.Flow) { f.Moved(e.Position, domain.ImportResult{}); f.Refused++ })
		return nil
	default:
		return err
	}
}

func (o *outbox) write(ctx context.Context, e *domain.Event, payload object) error {
	o.echoes.emitted(string(e.Type), payload.canonical(), time.Now())
	origin := e.Origin
	if origin == "" {
		origin = o.Deployment
	}
	payload[markMember] = mustJSON(mark{ID: e.ID, Origin: origin, Via: o.Deployment})
	u := unconfirmed{first: e.Position, position: e.Position, count: 1}
	var err error
	if o.config.Delivery == Acknowledged {
		u.event = e
		u.answer, err = o.conn.EmitAck(ctx, string(e.Type), payload)
	} else {
		err = o.conn.Emit(ctx, string(e.Type), payload)
	}
	if errors.Is(err, sioclient.ErrTooLarge) {
		return err
	}
	if err == nil { // or it is not there as a whole, and is sent again
		u.number = o.conn.Written()
		o.unconfirmed = append(o.unconfirmed, u)
	}
	return err
}

// maxUnconfirmed bounds what is remembered of what may be lost.
const maxUnconfirmed = 10_000

// settle forgets what the server has read for sure.
func (o *outbox) dropConfirmed() {
	confirmed, n := o.conn.Confirmed(), 0
	for n < len(o.unconfirmed) && o.unconfirmed[n].number <= confirmed {
		n++
	}
	o.unconfirmed = o.unconfirmed[n:]
	if len(o.unconfirmed) > maxUnconfirmed {
		o.coarsen()
	}
}

// coarsen makes one of each two that follow each other. So all that may be lost is
// reported, and at worst some of what is not.
func (o *outbox) coarsen() {
	coarse := o.unconfirmed[:0]
	for i, u := range o.unconfirmed {
		if i%2 == 1 {
			before := &coarse[len(coarse)-1]
			u.first, u.count = before.first, before.count+u.count
			*before = u
			continue
		}
		coarse = append(coarse, u)
	}
	o.unconfirmed = coarse
}

// takeAnswers takes the answers that have come.
func (o *outbox) takeAnswers() {
	for len(o.unconfirmed) > 0 {
		select {
		case args := <-o.unconfirmed[0].answer:
			o.acknowledged(o.unconfirmed[0], args)
		default:
			return
		}
	}
}

// reportUnconfirmed reports, at the end of a connection, what may not have got there, or
// may get there twice.
func (o *outbox) reportUnconfirmed() {
	kind, detail := domain.FindingMaybeLost, "written to a connection that broke, and not sent again"
	if o.config.Delivery == Acknowledged {
		kind, detail = domain.FindingMaybeTwice, "not acknowledged before the connection broke, and sent again"
		o.takeAnswers()
	} else {
		o.dropConfirmed()
	}
	if len(o.unconfirmed) == 0 {
		return
	}
	first, last, count := o.unconfirmed[0].first, o.unconfirmed[len(o.unconfirmed)-1].position, uint64(0)
	for i := range o.unconfirmed {
		count += o.unconfirmed[i].count
	}
	o.reporter.add(domain.Finding{Kind: kind, After: before(first), Through: &last, Count: count, Detail: detail})
}

// before is the position right before another.
func before(p domain.Position) *domain.Position {
	if p.N > 0 {
		return &domain.Position{Ms: p.Ms, N: p.N - 1}
	}
	return &domain.Position{Ms: p.Ms - 1, N: 1<<64 - 1}
}
