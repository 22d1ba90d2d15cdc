package socketio

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

// ledger records the appended events: per system, the device of each event, at index
// seq-1.
type ledger struct {
	b       *bundle
	mu      sync.Mutex
	devices map[domain.SystemID][]string
}

func (l *ledger) append(system domain.SystemID, device string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.devices[system] = append(l.devices[system], device)
	l.b.source.Append(system, &domain.DeviceUpdate{DeviceID: domain.DeviceID(device), PowerW: domain.Some(1.5)})
}

// between returns the seqs after one and up to another, of the events about the device,
// or of all events if device is "".
func (l *ledger) between(system domain.SystemID, after, upTo uint64, device string) (seqs []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, about := range l.devices[system] {
		if seq := uint64(i + 1); seq > after && seq <= upTo && (device == "" || about == device) {
			seqs = append(seqs, seq)
		}
	}
	return seqs
}

func (l *ledger) newest(system domain.SystemID) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.devices[system]))
}

// model is a client with the state that it expects.
type model struct {
	*testClient
	t      *testing.T
	rand   *rand.Rand
	ledger *ledger
	in     map[domain.SystemID]*whereabouts
	hung   []*conformance.WebSocket // earlier connections that are still open
	steps  []string

	commands sync.WaitGroup // commands that remove the client from rooms
	told     int            // how many of them the client learned of
}

// whereabouts is the expected state of the client in one room.
type whereabouts struct {
	last     uint64 // the client got every event up to here that passes its filter
	device   string // the device in the filter; "" for any
	conflate bool
	snapshot bool // the client expects a snapshot first
	unsure   bool // the client did not wait for the answer to its join
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\nafter: %s", fmt.Sprintf(format, args...), strings.Join(m.steps, ", "))
}

// got checks an event against the model.
func (m *model) got(e event) {
	m.t.Helper()
	var said struct {
		SystemID domain.SystemID
		Seq      uint64
	}
	switch e.name {
	case "left":
		_ = json.Unmarshal(e.args[0], &said)
		m.steps = append(m.steps, fmt.Sprint("told to have left ", said.SystemID))
		m.told++
		delete(m.in, said.SystemID)
		return
	case "joined": // behind a "left": the client joined again before it got that notice
		_ = json.Unmarshal(e.args[0], &said)
		if m.in[said.SystemID] != nil {
			m.fail("got %s %s", e.name, e.args)
		}
		m.in[said.SystemID] = &whereabouts{unsure: true}
		return
	case "snapshot":
		_ = json.Unmarshal(e.args[0], &said)
	case "device-update":
		_ = json.Unmarshal(e.args[1], &said)
	default:
		m.fail("got %s %s", e.name, e.args)
	}
	p := m.in[said.SystemID]
	switch {
	case p == nil:
		m.fail("%s %d of %s, which is not joined", e.name, said.Seq, said.SystemID)
	case p.unsure:
		return
	case p.snapshot != (e.name == "snapshot"):
		m.fail("%s %d of %s: expected a snapshot: %v", e.name, said.Seq, said.SystemID, p.snapshot)
	case p.snapshot:
		if p.snapshot = false; said.Seq < p.last {
			m.fail("a snapshot of %d for who is at %d", said.Seq, p.last)
		}
		p.last = said.Seq
		return
	}
	want := m.ledger.between(said.SystemID, p.last, said.Seq, p.device)
	if len(want) == 0 || want[len(want)-1] != said.Seq || len(want) > 1 && !p.conflate {
		m.fail("%s %d of %s behind %d, with device %q", e.name, said.Seq, said.SystemID, p.last, p.device)
	}
	p.last = said.Seq
}

func (m *model) ok(name string, argument any) (answer map[string]any, ok bool) {
	answer = m.ask(m.got, name, argument)
	ok, _ = answer["ok"].(bool)
	return answer, ok
}

// joins returns a random join.
func (m *model) joins(system domain.SystemID) (request map[string]any, p whereabouts) {
	request = map[string]any{"systemId": system}
	if m.rand.IntN(2) == 0 {
		p.device = fmt.Sprint("plug-", 1+m.rand.IntN(2))
		request["devices"] = []string{p.device}
	}
	if m.rand.IntN(3) == 0 {
		p.conflate, request["conflate"] = true, true
	}
	if m.rand.IntN(4) == 0 {
		p.snapshot, request["snapshot"] = true, true
	}
	return request, p
}

func (m *model) join(system domain.SystemID) {
	request, p := m.joins(system)
	old := m.in[system]
	unsure := old != nil && old.unsure
	if unsure && !p.snapshot {
		request["after"] = "0-0"
	}
	answer, ok := m.ok("join-system", request)
	old = m.in[system] // a command may have removed the client in the meantime
	m.steps = append(m.steps, fmt.Sprint(request, " ", ok))
	switch at := uint64(answer["seq"].(float64)); {
	case !ok:
		m.fail("join-system: %v", answer)
	case old != nil && len(request) == 1: // the client keeps its position
		return
	case old != nil && old.unsure && !unsure && !p.snapshot: // the server has restored the room, and the client continues there
		return
	case old != nil && !unsure && !p.snapshot: // a new filter begins at the client's position
		p.last = old.last
		if old.snapshot {
			m.fail("an answer before the snapshot")
		}
	default:
		p.last = at
	}
	m.in[system] = &p
}

func (m *model) leave(system domain.SystemID) {
	answer, ok := m.ok("leave-system", system)
	m.steps = append(m.steps, fmt.Sprint("leave ", system))
	if in := m.in[system]; ok != (in != nil) && (in == nil || !in.unsure) {
		m.fail("leave-system: %v", answer)
	}
	delete(m.in, system)
}

// again connects after a cut and demands that the server recovers the client.
func (m *model) again(how string) {
	m.t.Helper()
	m.steps = append(m.steps, fmt.Sprintf("%s (%s)", how, m.offset))
	if m.connect(); !m.recovered && m.sure() {
		m.fail("not recovered")
	}
}

// sure reports whether the client is certain to be in a room.
func (m *model) sure() bool {
	for _, p := range m.in {
		if !p.unsure {
			return true
		}
	}
	return false
}

// step does one random action of a client, a network or a server.
func (m *model) step() {
	m.t.Helper()
	system := []domain.SystemID{sol, luna}[m.rand.IntN(2)]
	switch m.rand.IntN(13) {
	case 0, 1, 2:
		m.join(system)
	case 3:
		m.leave(system)
	case 4: // a cut loses the packets in flight
		m.again("cut")
	case 5:
		m.steps = append(m.steps, "restart")
		for m.cut(); len(m.hung) > 0; m.hung = m.hung[1:] { // otherwise the server waits for these connections to close
			m.hung[0].Close()
		}
		m.b.start()
		m.again("cut")
	case 6: // the earlier connection hangs, and the client continues in another process
		if len(m.hung) < 3 {
			m.hung = append(m.hung, m.ws)
			m.ws = nil
		}
		m.again("take over")
		for _, ws := range m.hung { // an error is fine: the connection may be gone
			_ = ws.Send(`42["join-system",{"systemId":"clinica-sol","conflate":true}]`, `42["leave-system","centro-luna"]`)
		}
	case 7: // cut before the answer to a join
		request, _ := m.joins(system)
		sent, _ := json.Marshal([]any{"join-system", request})
		m.send("42999" + string(sent))
		if m.in[system] == nil || len(request) > 1 {
			m.in[system] = &whereabouts{unsure: true}
		}
		m.steps = append(m.steps, "no answer to "+string(sent))
		if m.again("cut"); m.in[system].unsure {
			m.join(system)
		}
	case 8: // a join that the server cannot save changes nothing
		m.obeyed()
		m.b.sessions.fail(true)
		request, _ := m.joins(system)
		if m.in[system] != nil {
			request["devices"] = []string{"plug-1", "plug-2"}
		}
		answer, ok := m.ok("join-system", request)
		m.b.sessions.fail(false)
		m.steps = append(m.steps, fmt.Sprint("unsaved ", request))
		if ok {
			m.fail("joined without saving: %v", answer)
		}
	case 9: // the client leaves the namespace and returns over the same connection
		m.send("41")
		auth, _ := json.Marshal(map[string]string{"token": m.token, "pid": m.pid, "offset": m.offset})
		m.send("40" + string(auth))
		m.steps = append(m.steps, fmt.Sprintf("namespace (%s)", m.offset))
		text := m.read()
		for !strings.HasPrefix(text, "40{") {
			text = m.read()
		}
		if m.connected(text); !m.recovered && m.sure() {
			m.fail("not recovered")
		}
	case 10, 11: // a command removes the client from a room during another action
		m.command(system)
		switch other := []domain.SystemID{sol, luna}[m.rand.IntN(2)]; m.rand.IntN(4) {
		case 0:
			m.join(other)
		case 1:
			m.again("cut")
		case 2:
			m.leave(other)
		}
	default:
		for range m.rand.IntN(20) {
			m.ledger.append(system, fmt.Sprint("plug-", 1+m.rand.IntN(2)))
		}
		if m.ok("ping", nil); m.rand.IntN(2) == 0 {
			m.catchUp()
		}
	}
}

// command removes the client from a room if it is in both rooms; otherwise the server
// would close its socket. It does not wait for the effect.
func (m *model) command(system domain.SystemID) {
	m.steps = append(m.steps, fmt.Sprint("command to leave ", system))
	server := m.b.server
	m.commands.Go(func() {
		inBoth := func(s domain.Socket) bool { return len(s.Systems) == 2 }
		server.Disconnect(inBoth, client.ForcedDisconnect{Reason: "cleaning", Room: system})
	})
}

// obeyed waits until the server has carried out all commands.
func (m *model) obeyed() {
	m.commands.Wait()
	dismissed := func() bool {
		for _, so := range m.b.server.all() {
			so.sending.Lock()
			found := slices.ContainsFunc(so.rooms, func(one *membership) bool { return one.silent })
			so.sending.Unlock()
			if found {
				return true
			}
		}
		return false
	}
	for dismissed() && m.ctx.Err() == nil {
		runtime.Gosched()
	}
}

// catchUp reads until every event appended so far has arrived. It skips rooms that the
// server restored without the client's knowledge, because the model cannot predict their
// events.
func (m *model) catchUp() {
	m.t.Helper()
	m.steps = append(m.steps, "catch up")
	for system, p := range m.in {
		newest := m.ledger.newest(system)
		for m.in[system] == p && !p.unsure && (p.snapshot || len(m.ledger.between(system, p.last, newest, p.device)) > 0) {
			m.got(m.next())
		}
	}
}

// A client gets each event of a room once and in order, from the position at which it
// joined, through random cuts, restarts, takeovers and commands.
func TestEachEventOnceWhateverHappens(t *testing.T) {
	t.Parallel()
	for range 6 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			fast := limit.Rate{PerSecond: 1e6, Burst: 1e6}
			b := setup(t, Config{Rates: limit.Rates{Frames: fast, Joins: fast, Refused: fast}})
			l := &ledger{b: b, devices: map[domain.SystemID][]string{}}
			for _, system := range []domain.SystemID{sol, luna} {
				l.append(system, "plug-1")
			}
			m := &model{
				testClient: b.client("eva:clinica-sol,centro-luna"), t: t, rand: rand.New(rand.NewPCG(seed, 0)), ledger: l,
				in: map[domain.SystemID]*whereabouts{},
			}
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("after: %s", strings.Join(m.steps, ", "))
				}
			})
			b.sessions.before(func(string) { // events that arrive during a join
				l.append(sol, "plug-1")
				l.append(luna, "plug-2")
			})
			m.connect()
			ctx, stop := context.WithCancel(t.Context())
			var appending sync.WaitGroup
			defer appending.Wait()
			defer stop()
			pace := time.NewTicker(200 * time.Microsecond)
			defer pace.Stop()
			appending.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-ctx.Done():
						return
					case <-pace.C:
					}
					l.append([]domain.SystemID{sol, luna}[i%2], fmt.Sprint("plug-", 1+i/2%2))
				}
			})
			for range 80 {
				m.step()
			}
			stop()
			appending.Wait()
			m.commands.Wait()
			m.catchUp()
			t.Logf("%d times it was told to have left", m.told)
		})
	}
}
