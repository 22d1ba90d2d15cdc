package rooms

import (
	"context"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
)

// readKey identifies a read. Readers that need the same page share a read.
type readKey struct {
	after  domain.Cursor
	locate bool // locate the position first
	max    int
	epoch  int
}

// read is a page that is being read, and the readers that wait for it.
type read struct {
	room    *room
	key     readKey
	waiting []*reader
	pause   backoff.Backoff
}

// fetch begins the reads among the steps. The caller holds the room's lock.
func (r *room) fetch(steps []step) {
	for i := range steps {
		if steps[i].kind == fetch {
			r.fetchFor(steps[i].reader, r.hub.newBackoff(), 0)
		}
	}
}

func (r *room) fetchFor(who *reader, pause backoff.Backoff, delay time.Duration) {
	key := readKey{after: who.place, locate: who.lost, max: r.hub.config.PageEvents, epoch: r.core.epoch}
	if who.filter.IsZero() && !who.conflate {
		key.max = r.core.tail.perFrame(r.hub.config.FrameBytes, key.max)
	}
	if under := r.reads[key]; under != nil {
		under.waiting = append(under.waiting, who)
		return
	}
	job := &read{room: r, key: key, waiting: []*reader{who}, pause: pause}
	r.reads[key] = job
	job.submit(delay)
}

func (j *read) submit(delay time.Duration) {
	pool, system := &j.room.hub.pool, j.room.system
	if delay == 0 {
		pool.submit(system, j.run)
		return
	}
	time.AfterFunc(delay, func() { pool.submit(system, j.run) }) // a closed pool drops the job
}

// run reads the page and gives it to the waiting readers. After a failure it retries with
// growing pauses, as long as a reader waits.
func (j *read) run() {
	r := j.room
	r.mu.Lock()
	wanted := false
	for _, reader := range j.waiting {
		wanted = wanted || reader.state == reading
	}
	if !wanted {
		delete(r.reads, j.key)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()

	var p page
	err := isolate.Run(r.hub.logger, where, func() (err error) {
		p, err = j.load()
		return err
	})
	if err != nil {
		if r.hub.ctx.Err() == nil {
			delay := j.pause.Next()
			r.hub.logger.Warn("rooms: cannot read a page; will retry", "system", r.system, "after", delay, "error", err)
			j.submit(delay)
		}
		return
	}

	r.perform(j.give(p))
}

// give gives the page to the waiting readers.
func (j *read) give(p page) []step {
	r := j.room
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.reads, j.key)
	var steps []step
	var doubted []*reader
	for _, reader := range j.waiting {
		var ok bool
		if steps, ok = r.core.deliverPage(reader, p, steps); !ok {
			doubted = append(doubted, reader)
		}
	}
	if len(doubted) > 0 {
		delay := j.pause.Next()
		for _, reader := range doubted {
			r.fetchFor(reader, j.pause, delay)
		}
		r.hub.logger.Warn("rooms: a page omits events; will locate its readers again",
			"system", r.system, "place", p.at.String(), "after", delay)
	}
	r.fetch(steps)
	return steps
}

// load reads the page from the source.
func (j *read) load() (page, error) {
	hub, system := j.room.hub, j.room.system
	ctx, cancel := context.WithTimeout(hub.ctx, hub.config.ReadTimeout)
	defer cancel()
	p := page{epoch: j.key.epoch, at: j.key.after, located: j.key.locate}
	if p.located {
		at, err := hub.source.Locate(ctx, system, j.key.after.Position)
		if isAhead(err) {
			p.ahead = true
			return p, nil
		}
		if err != nil {
			return page{}, err
		}
		p.at = at
	}
	events, err := hub.source.Page(ctx, system, p.at, j.key.max)
	if isGap(err) {
		return p, nil // without events, because the place is uncertain
	}
	if err != nil {
		return page{}, err
	}
	p.events = encodeAll(events)
	return p, nil
}
