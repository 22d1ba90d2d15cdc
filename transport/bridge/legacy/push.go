package legacy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/bridge"
	"github.com/plugcast/plugcast/transport/bridge/legacy/sioclient"
)

// pageSize is the number of events that are emitted between two saves, and the most that
// wait for their acknowledgements.
const pageSize = 64

// push emits the events of our log after the saved position, until the connection ends.
func (o *outbox) push(ctx context.Context) error {
	defer o.sync(ctx)
	after := o.saved.get().Pushed
	if after == nil { // the first connection: start with the next event
		end, err := o.Reader.End(ctx, o.system.System.System)
		if err != nil {
			return fmt.Errorf("legacy: find the end of our log: %w", err)
		}
		after = &end
		o.saved.change(func(s *SavedState) { s.Pushed = after })
	}
	// Saved before the first emission: the start, because a restart would choose a later
	// one and leave out the events between; and Open, because without it nobody would
	// report the page that is emitted twice after a crash.
	if err := o.save(ctx, o.state); err != nil {
		return err
	}
	from, err := o.locate(ctx, *after)
	if err != nil {
		return err
	}
	if from != *after {
		o.setPushed(from) // otherwise each connection would find and report the same loss
	}
	return o.follow(ctx, o.conn, from, func(events []domain.Event) error {
		if err := o.emitPage(ctx, events); err != nil {
			return err
		}
		o.setPushed(events[len(events)-1].Position)
		return o.save(ctx, o.state)
	})
}

// syncTimeout bounds how long the end of a connection waits for the server.
const syncTimeout = time.Second

// sync waits until the server has read everything that was written. If it does not confirm
// that, reportUnconfirmed reports it.
func (o *outbox) sync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncTimeout)
	defer cancel()
	_ = o.conn.Sync(ctx)
}

// setPushed notes that the link has emitted everything up to a position.
func (o *outbox) setPushed(to domain.Position) {
	o.saved.change(func(s *SavedState) { s.Pushed = &to })
}

// follow calls fn with the events of the system after a position, in pages, until the
// connection ends. If our log lost or renumbered events, follow reports it and fails: the
// next connection reads on from the saved position.
func (s *systemLink) follow(
	ctx context.Context, conn *sioclient.Conn, after domain.Position, fn func([]domain.Event) error,
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-conn.Done():
			cancel(conn.Err())
		case <-ctx.Done():
		}
	})
	defer func() {
		cancel(nil)
		watching.Wait()
	}()
	err := s.Reader.Follow(ctx, s.system.System.System, after, func(events []domain.Event, _ uint64) error {
		for page := range slices.Chunk(events, pageSize) {
			if err := fn(page); err != nil {
				return err
			}
			after = page[len(page)-1].Position
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return nil
	})
	if errors.Is(err, domain.ErrGap) || errors.Is(err, domain.ErrAhead) {
		s.reportLogLoss(after, domain.Finding{
			After: &after, Detail: "our own log lost or renumbered events that the link was reading; the link may have missed some of them",
		})
	}
	return err
}

// locate returns the position to read our log from. That is the given one, unless our log
// lost its newest events with a Redis: then it is the log's end, and locate reports the loss.
func (s *systemLink) locate(ctx context.Context, after domain.Position) (from domain.Position, err error) {
	system := s.system.System.System
	from = after
	_, err = s.Reader.Locate(ctx, system, after)
	if errors.Is(err, domain.ErrAhead) {
		if from, err = s.Reader.End(ctx, system); err == nil {
			s.reportLogLoss(after, domain.Finding{
				After: &from, Through: &after,
				Detail: "our own log lost the events up to here; the link may have missed events that were appended since",
			})
		}
	}
	if err != nil {
		return from, fmt.Errorf("legacy: find the saved position in our log: %w", err)
	}
	return from, nil
}

// reportLogLoss reports that our log lost events near the position up to which the link has
// read. It reports each position once, although each connection may find the loss again.
func (s *systemLink) reportLogLoss(read domain.Position, f domain.Finding) {
	if s.lossReported != nil && *s.lossReported == read {
		return
	}
	s.lossReported = &read
	f.Kind = domain.FindingMaybeLost
	s.reporter.add(f)
}

// outbox holds the emissions over one connection that the server has not confirmed.
type outbox struct {
	*systemLink
	conn        *sioclient.Conn
	state       *bridge.State
	unconfirmed []emission // oldest first
}

// emission is one emission, or several consecutive ones.
type emission struct {
	number   uint64                   // of the last one, among the events that were written to this connection
	first    domain.Position          // of the first event
	position domain.Position          // of the last event
	count    uint64                   // of events
	answer   <-chan []json.RawMessage // gets the acknowledgement, or nil
	event    *domain.Event            // to be acknowledged, or nil
}

// emitPage emits a page, and with acknowledgements waits for them.
func (o *outbox) emitPage(ctx context.Context, events []domain.Event) error {
	for i := range events {
		e := &events[i]
		if err := o.emit(ctx, e); err != nil {
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
		args, err := o.await(ctx, o.conn, o.unconfirmed[0].answer)
		if err != nil {
			return err
		}
		o.acknowledge(args)
	}
	return nil
}

// acknowledge handles the answer to the oldest emission.
func (o *outbox) acknowledge(args []json.RawMessage) {
	oldest := o.unconfirmed[0]
	if reason, refused := refusal(args); refused {
		o.reporter.add(domain.Finding{
			Kind: domain.FindingRefused, Event: oldest.event.Type, Device: oldest.event.Device(), Through: &oldest.position,
			Here: oldest.event.Data, Detail: reason,
		})
	}
	o.unconfirmed = o.unconfirmed[1:]
	o.setPushed(oldest.position)
}

// emit emits an event, unless it came over this link or is not among the types to forward.
func (o *outbox) emit(ctx context.Context, e *domain.Event) error {
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
		o.reporter.add(domain.Finding{
			Kind: domain.FindingRefused, Event: e.Type, Device: e.Device(), Through: &e.Position, Detail: err.Error(),
		})
		o.state.OnPush(func(f *bridge.Flow) { f.Moved(e.Position, domain.ImportResult{}); f.Refused++ })
		return nil
	default:
		return err
	}
}

func (o *outbox) write(ctx context.Context, e *domain.Event, payload object) error {
	o.echoes.add(string(e.Type), payload.canonical(), time.Now())
	origin := e.Origin
	if origin == "" {
		origin = o.Deployment
	}
	payload[markMember] = mustJSON(mark{ID: e.ID, Origin: origin, Via: o.Deployment})
	written := emission{first: e.Position, position: e.Position, count: 1}
	var err error
	if o.config.Delivery == Acknowledged {
		written.event = e
		written.answer, err = o.conn.EmitAck(ctx, string(e.Type), payload)
	} else {
		err = o.conn.Emit(ctx, string(e.Type), payload)
	}
	if err == nil { // after an error the server does not have all of it, and the next connection emits it again
		written.number = o.conn.Written()
		o.unconfirmed = append(o.unconfirmed, written)
	}
	return err
}

// maxUnconfirmed bounds the unconfirmed emissions in memory.
const maxUnconfirmed = 10_000

// dropConfirmed removes the emissions that the server has certainly read.
func (o *outbox) dropConfirmed() {
	confirmed, n := o.conn.Confirmed(), 0
	for n < len(o.unconfirmed) && o.unconfirmed[n].number <= confirmed {
		n++
	}
	o.unconfirmed = o.unconfirmed[n:]
	if len(o.unconfirmed) > maxUnconfirmed {
		o.mergePairs()
	}
}

// mergePairs merges each two consecutive emissions into one. The report still covers all
// that may be lost, and may also cover one emission that is not.
func (o *outbox) mergePairs() {
	merged := o.unconfirmed[:0]
	for i, e := range o.unconfirmed {
		if i%2 == 0 {
			merged = append(merged, e)
			continue
		}
		last := &merged[len(merged)-1]
		e.first, e.count = last.first, last.count+e.count
		*last = e
	}
	o.unconfirmed = merged
}

// takeAnswers handles the acknowledgements that have arrived.
func (o *outbox) takeAnswers() {
	for len(o.unconfirmed) > 0 {
		select {
		case args := <-o.unconfirmed[0].answer:
			o.acknowledge(args)
		default:
			return
		}
	}
}

// reportUnconfirmed reports, at the end of a connection, the events that the server may not
// have received, or may receive twice.
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

// before returns the greatest position before p.
func before(p domain.Position) *domain.Position {
	if p.N > 0 {
		return &domain.Position{Ms: p.Ms, N: p.N - 1}
	}
	return &domain.Position{Ms: p.Ms - 1, N: 1<<64 - 1}
}
