package rooms

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/plugcast/plugcast/domain"
)

// world is a system whose events reach a core, and readers whose sinks and pages are served
// in random order. Everything is in memory and naive.
type world struct {
	log     []domain.Event
	encoded []*Encoded // of log, for filters to look at
	core    *core
	fed     int // events given to the core
	readers []*witness
	frame   int // most bytes of a frame
}

// witness is a reader and the events that it got.
type witness struct {
	reader
	from    uint64 // seq of where it began
	got     []received
	pending bool // a page is wanted
	key     readKey
}

type received struct {
	domain.Event
	skipped span
}

func newWorld(t *rapid.T) *world {
	w := &world{frame: rapid.IntRange(300, 3000).Draw(t, "frame")}
	w.extend(t, rapid.IntRange(0, 20).Draw(t, "history"))
	w.fed = rapid.IntRange(0, len(w.log)).Draw(t, "start")
	w.core = newCore(w.at(w.fed), rapid.IntRange(500, 20_000).Draw(t, "tail"), w.frame)
	return w
}

// at returns the cursor of the first n events.
func (w *world) at(n int) domain.Cursor {
	if n == 0 {
		return domain.Cursor{}
	}
	return w.log[n-1].Cursor()
}

func (w *world) extend(t *rapid.T, n int) {
	for range n {
		e, err := domain.NewEvent("clinica-sol", drawData(t), domain.Cause{Actor: "test"})
		if err != nil {
			t.Fatal(err)
		}
		seq := uint64(len(w.log) + 1)
		e.ID = fmt.Sprint("id-", seq)
		e.Time = time.Unix(1_795_461_046, int64(seq)*1000).UTC()
		e.Seq, e.Position = seq, domain.Position{Ms: 1000 + seq/2, N: seq % 2}
		w.log = append(w.log, e)
		w.encoded = append(w.encoded, encode(&e))
	}
}

var testDevices = []domain.DeviceID{"plug-1", "plug-2", "plug-3"}

func drawData(t *rapid.T) domain.Data {
	device := rapid.SampledFrom(testDevices).Draw(t, "device")
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return domain.DeviceOfflineStatus{DeviceID: device, Online: rapid.Bool().Draw(t, "online"), Reason: domain.ReasonReported}
	case 1:
		return domain.EquipmentRegistered{EquipmentID: "laser", Name: "Läser"}
	}
	u := domain.DeviceUpdate{DeviceID: device}
	fields := rapid.IntRange(0, 15).Draw(t, "fields")
	if fields&1 != 0 {
		u.RelayOn = domain.Some(rapid.Bool().Draw(t, "on"))
	}
	if fields&2 != 0 {
		u.PowerW = domain.Some(float64(rapid.IntRange(0, 100).Draw(t, "power")))
	}
	if fields&12 == 12 {
		u.DeviceTime = drawDeviceTime(t)
	}
	return u
}

func (w *world) join(t *rapid.T) {
	at := rapid.IntRange(0, len(w.log)).Draw(t, "after")
	r := &witness{from: uint64(at)}
	r.conflate = rapid.Bool().Draw(t, "conflate")
	r.encoding = JSON
	if rapid.Bool().Draw(t, "filtered") {
		r.filter.Devices = testDevices[:rapid.IntRange(0, 2).Draw(t, "devices")]
		if rapid.Bool().Draw(t, "typed") {
			r.filter.Types = []domain.EventType{domain.TypeDeviceUpdate}
		}
	}
	r.place = w.at(at)
	w.core.add(&r.reader)
	w.readers = append(w.readers, r)
}

func (w *world) pick(t *rapid.T, state readerState) *witness {
	var in []*witness
	for _, r := range w.readers {
		if r.state == state {
			in = append(in, r)
		}
	}
	if len(in) == 0 {
		t.Skip("no such reader")
	}
	return rapid.SampledFrom(in).Draw(t, "reader")
}

// perform performs the core's steps. Pages and sinks finish later.
func (w *world) perform(t *rapid.T, steps []step) {
	for _, s := range steps {
		var r *witness
		for _, candidate := range w.readers {
			if &candidate.reader == s.reader {
				r = candidate
			}
		}
		switch s.kind {
		case fetch:
			if r.pending && r.key.epoch == w.core.epoch {
				t.Fatalf("a second page is wanted: %+v", s)
			}
			r.pending, r.key = true, readKey{after: r.place, locate: r.lost, epoch: w.core.epoch}
		case deliver:
			if len(s.frame.Bytes) > w.frame && s.frame.Events > 1 {
				t.Fatalf("a frame of %d events has %d bytes of %d", s.frame.Events, len(s.frame.Bytes), w.frame)
			}
			events := parseFrame(t, s.frame.Bytes)
			if len(events) != s.frame.Events {
				t.Fatalf("frame says %d events and has %d", s.frame.Events, len(events))
			}
			r.got = append(r.got, events...)
		default:
			t.Fatalf("unexpected step %+v", s)
		}
	}
}

func parseFrame(t interface{ Fatal(...any) }, b []byte) []received {
	if b[0] != '[' {
		b = slices.Concat([]byte("["), b, []byte("]"))
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err, string(b))
	}
	var out []received
	for _, one := range raw {
		var extra struct {
			Skipped struct{ From, To uint64 } `json:"skipped"`
		}
		var r received
		if err := json.Unmarshal(one, &r.Event); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(one, &extra); err != nil {
			t.Fatal(err)
		}
		r.skipped = span{extra.Skipped.From, extra.Skipped.To}
		out = append(out, r)
	}
	return out
}

func (w *world) feed(t *rapid.T, n int) {
	events := encodeAll(w.log[w.fed : w.fed+n])
	w.fed += n
	steps, err := w.core.append(events, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.perform(t, steps)
}

// serve gives a reader the page that it waits for, with at most limit events.
func (w *world) serve(t *rapid.T, r *witness, limit int) {
	p := page{epoch: r.key.epoch, located: r.key.locate, at: r.key.after}
	from := int(p.at.Seq)
	p.events = encodeAll(w.log[from:min(from+limit, len(w.log))])
	r.pending = false
	steps, ok := w.core.deliverPage(&r.reader, p, nil)
	if !ok {
		t.Fatalf("a right page was refused: %+v", p)
	}
	w.perform(t, steps)
}

// settle runs everything that can run.
func (w *world) settle(t *rapid.T) {
	w.feed(t, len(w.log)-w.fed)
	for busy := true; busy; {
		busy = false
		for _, r := range w.readers {
			switch r.state {
			case parked:
				w.perform(t, w.core.start(&r.reader, nil))
			case sending:
				w.perform(t, w.core.sent(&r.reader, nil))
			case reading:
				w.serve(t, r, 7)
			default:
				continue
			}
			busy = true
		}
	}
}

// wanted returns the events that a reader without conflation must have got up to a seq.
func (w *world) wanted(r *witness, to uint64) []domain.Event {
	var out []domain.Event
	for i, e := range w.log[:to] {
		if e.Seq > r.from && r.filter.Match(w.encoded[i].Type, w.encoded[i].device) {
			out = append(out, e)
		}
	}
	return out
}

func (w *world) check(t *rapid.T) {
	for _, r := range w.readers {
		if r.state == gone {
			continue
		}
		passed := w.core.progress(&r.reader)
		if passed.Seq < r.from {
			t.Fatalf("reader from %d passed only %s", r.from, passed)
		}
		if r.conflate {
			continue
		}
		wanted := w.wanted(r, uint64(len(w.log)))
		if len(r.got) > len(wanted) {
			t.Fatalf("%d events too many", len(r.got)-len(wanted))
		}
		for i, e := range r.got {
			if e.Cursor() != wanted[i].Cursor() || string(e.Data) != string(wanted[i].Data) {
				t.Fatalf("event %d of the reader from %d is %s, not %s", i, r.from, e.Cursor(), wanted[i].Cursor())
			}
		}
		if least := len(w.wanted(r, passed.Seq)); len(r.got) < least {
			t.Fatalf("passed %s, which makes %d events, and got %d", passed, least, len(r.got))
		}
	}
}

// checkConflated checks that the events of a conflating reader fold to the same devices as
// all events, and that they name the skipped events.
func (w *world) checkConflated(t *rapid.T, r *witness) {
	all, got := domain.NewState("clinica-sol"), domain.NewState("clinica-sol")
	for _, e := range w.wanted(r, uint64(len(w.log))) {
		e.Seq = 0
		if _, err := all.Apply(&e); err != nil {
			t.Fatal(err)
		}
	}
	last := r.from
	for _, e := range r.got {
		if e.Seq <= last {
			t.Fatalf("%d comes after %d", e.Seq, last)
		}
		next := last + 1
		if e.skipped != (span{}) {
			if e.skipped.from < next || e.skipped.to >= e.Seq || e.skipped.to < e.skipped.from {
				t.Fatalf("event %d after %d skipped %v", e.Seq, last, e.skipped)
			}
			next = e.skipped.to + 1
			if r.filter.IsZero() && e.skipped.from != last+1 {
				t.Fatalf("event %d after %d skipped %v", e.Seq, last, e.skipped)
			}
		}
		if r.filter.IsZero() && e.Seq != next {
			t.Fatalf("event %d follows %d: a hole", e.Seq, next-1)
		}
		last = e.Seq
		e.Event.Seq = 0
		if _, err := got.Apply(&e.Event); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := devicesOf(all), devicesOf(got); a != b {
		t.Fatalf("everything folds to\n%s\nwhat was sent to\n%s", a, b)
	}
}

func devicesOf(s *domain.State) string {
	for _, d := range s.Devices {
		d.UpdatedAt, d.Position = time.Time{}, domain.Position{}
	}
	b, err := json.Marshal(s.Snapshot().Devices)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestEveryReaderGetsItsSequence runs readers of all kinds through random
// orders of events, pages, slow sinks and broken subscriptions.
func TestEveryReaderGetsItsSequence(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"": w.check,
			"append": func(t *rapid.T) {
				w.extend(t, rapid.IntRange(1, 8).Draw(t, "n"))
			},
			"feed": func(t *rapid.T) {
				w.feed(t, rapid.IntRange(0, len(w.log)-w.fed).Draw(t, "n"))
			},
			"join":  w.join,
			"start": func(t *rapid.T) { w.perform(t, w.core.start(&w.pick(t, parked).reader, nil)) },
			"sent":  func(t *rapid.T) { w.perform(t, w.core.sent(&w.pick(t, sending).reader, nil)) },
			"page":  func(t *rapid.T) { w.serve(t, w.pick(t, reading), rapid.IntRange(1, 9).Draw(t, "limit")) },
			"leave": func(t *rapid.T) { w.core.remove(&w.pick(t, idle).reader) },
			"resubscribe": func(t *rapid.T) {
				w.fed = rapid.IntRange(0, len(w.log)).Draw(t, "start")
				w.perform(t, w.core.reset(w.at(w.fed), nil))
			},
		})
		w.settle(t)
		w.check(t)
		for _, r := range w.readers {
			switch {
			case r.state == gone:
			case w.core.progress(&r.reader) != w.at(len(w.log)):
				t.Fatalf("the reader passed %s of %s", w.core.progress(&r.reader), w.at(len(w.log)))
			case r.conflate:
				w.checkConflated(t, r)
			case len(r.got) != len(w.wanted(r, uint64(len(w.log)))):
				t.Fatalf("the reader got %d of %d", len(r.got), len(w.wanted(r, uint64(len(w.log)))))
			}
		}
	})
}

func drawDeviceTime(t *rapid.T) domain.Optional[time.Time] {
	clock := rapid.IntRange(0, 11).Draw(t, "clock")
	switch clock {
	case 0:
		return domain.Null[time.Time]()
	case 10: // was never set
		return domain.Some(time.Unix(5, 0).UTC())
	case 11: // is far ahead
		return domain.Some(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	return domain.Some(time.Unix(1_795_461_046+int64(clock), 0).UTC())
}
