package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/snapshot"
	"github.com/plugcast/plugcast/transport/testpeer"
)

func controller(t testing.TB, capacity, share, queue int, timeout time.Duration) *admission.Controller {
	c, err := admission.New(admission.Config{Capacity: capacity, Share: share, Queue: queue, QueueAll: 4 * queue, Patience: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// slowReads delays reads until gate is closed, and signals the beginning of each.
type slowReads struct {
	*platform
	began chan domain.SystemID
	gate  chan struct{}
}

func (s *slowReads) block(ctx context.Context, system domain.SystemID) {
	if system != "clinica-sol" {
		return
	}
	s.began <- system
	select {
	case <-s.gate:
	case <-ctx.Done():
	}
}

func (s *slowReads) DevicePage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.DeviceID, limit int,
) (*domain.State, bool, error) {
	s.block(ctx, system)
	return s.platform.DevicePage(ctx, actor, system, after, limit)
}

func (s *slowReads) StateAt(ctx context.Context, actor domain.Actor, system domain.SystemID, at domain.Position) (*domain.State, error) {
	s.block(ctx, system)
	return s.platform.StateAt(ctx, actor, system, at)
}

// Reads of a system beyond its share wait, and beyond the queue they get 429. Another
// system's reads, and this system's commands, go on.
func TestBusy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path string
		most int // at the same time
	}{
		"lists": {sol + "/devices?limit=1", 3},
		"past":  {sol + "/devices?at=1-0", 1},
		"state": {sol + "/snapshot?at=1-0", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var reads *slowReads
			work := controller(t, 18, 6, 2, time.Minute)
			b := setup(t, func(c *Config) {
				reads = &slowReads{platform: c.Reads.(*platform), began: make(chan domain.SystemID, 100), gate: make(chan struct{})}
				c.Reads, c.Work = reads, work
			})
			b.seed()
			const queue = 2
			answers := make(chan reply, 100)
			for range c.most + queue {
				go func() { answers <- b.send(domain.RoleAdmin, "GET", c.path) }()
			}
			for range c.most {
				<-reads.began
			}
			testpeer.Eventually(t, "the queue to be full", func() bool { return work.Usage().Waiting == queue })
			r := b.send(domain.RoleAdmin, "GET", c.path)
			b.want(r, 429, admission.CodeBusy)
			if r.header.Get("Retry-After") != "1" {
				t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
			}
			if len(reads.began) != 0 {
				t.Errorf("%d more began", len(reads.began))
			}
			header := http.Header{"Authorization": {"Bearer " + b.token(domain.RoleAdmin, "centro-luna")}}
			other := b.exchange("GET", strings.Replace(c.path, "clinica-sol", "centro-luna", 1), header, http.NoBody)
			b.want(other, 200, "")
			b.want(b.send(operator, "PUT", assignD1, e1), 202, "")
			close(reads.gate)
			for range c.most + queue {
				b.want(<-answers, 200, "")
			}
			if u := work.Usage(); u != (admission.Usage{}) {
				t.Errorf("left over: %+v", u)
			}
		})
	}
}

// Every read counts as work of the system that it is about: it waits for that system's
// share, and gets 429 if the queue is full.
func TestOperatorsReadsAreAdmitted(t *testing.T) {
	t.Parallel()
	work := controller(t, 2*costPage, costPage, 1, time.Minute)
	b := setup(t, func(c *Config) { c.Work, c.Quarantine = work, quarantined{} })
	for _, system := range []domain.SystemID{"clinica-sol", domain.PlatformSystem} {
		grant, err := work.Admit(t.Context(), system, costPage)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		waited := make(chan error, 1)
		go func() {
			_, err := work.Admit(ctx, system, costPage)
			waited <- err
		}()
		testpeer.Eventually(t, "one to wait", func() bool { return work.Usage().Waiting == 1 })
		for _, path := range []string{"/api/v1/sockets", "/api/v1/bridges/findings", "/api/v1/quarantine", "/api/v1/dead-letters"} {
			mine := path
			if system != domain.PlatformSystem {
				mine += "?systemId=" + string(system)
			}
			b.want(b.send(domain.RoleStaff, "GET", mine), 429, admission.CodeBusy)
			b.want(b.send(domain.RoleStaff, "GET", path+"?systemId=centro-luna"), 200, "")
		}
		cancel()
		<-waited
		grant.Release()
	}
	if u := work.Usage(); u != (admission.Usage{}) {
		t.Errorf("left over: %+v", u)
	}
}

// Every operation is either admitted as a read, or a command, which must not wait for
// reads.
func TestEveryOperationIsAdmitted(t *testing.T) {
	t.Parallel()
	commands := []string{
		"assign", "release", "createEquipment", "updateEquipment", "retireEquipment", "createConnection", "updateConnection",
		"deleteConnection", "switchRelay", "correctEnergy", "disconnect", "publishUpdates", "takeEvents", "setBridgeCursor",
		"createTicket", // one entry in Redis
	}
	admitted := []string{"closeSocket", "commandConnection"} // commands that look up their target
	work := controller(t, 2*costPage, costPage, 1, time.Minute)
	b := setup(t, func(c *Config) {
		c.Work, c.Quarantine = work, quarantined{}
		snapshots := snapshot.New(snapshot.Config{Source: &largeSnapshots{}, Work: work, Timeout: time.Minute})
		t.Cleanup(snapshots.Close)
		c.Snapshots = snapshots
	})
	for _, system := range []domain.SystemID{"clinica-sol", domain.PlatformSystem} {
		grant, err := work.Admit(t.Context(), system, costPage)
		if err != nil {
			t.Fatal(err)
		}
		defer grant.Release()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for n, system := range []domain.SystemID{"clinica-sol", domain.PlatformSystem} {
		go func() { _, _ = work.Admit(ctx, system, costPage) }()
		testpeer.Eventually(t, "all to wait", func() bool { return work.Usage().Waiting == n+1 })
	}
	fill := strings.NewReplacer("{systemId}", "clinica-sol", "{action}", "stop", "{deviceId}", "d1", "{equipmentId}", "e1",
		"{connectionId}", "c1", "{socketId}", "s1")
	seen := 0
	for path, item := range b.api.huma.OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{
			"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete, "HEAD": item.Head,
			"OPTIONS": item.Options,
		} {
			if op == nil || op.Security == nil { // operations without authentication have no system
				continue
			}
			seen++
			if slices.Contains(commands, op.OperationID) {
				if method == "GET" {
					t.Errorf("%s is no command", op.OperationID)
				}
				continue
			}
			if method != "GET" && !slices.Contains(admitted, op.OperationID) {
				t.Errorf("%s (%s %s) is new: say whether it is admitted", op.OperationID, method, path)
			}
			role := domain.RoleStaff
			if strings.Contains(op.OperationID, "BridgeCursor") {
				role = domain.RoleBridge
			}
			at := fill.Replace(path)
			if strings.HasSuffix(path, "/cursor") {
				at += "?source=far"
			}
			if r := b.send(role, method, at); r.status != 429 || r.code() != string(admission.CodeBusy) {
				t.Errorf("%s (%s %s) is not admitted: %d %s", op.OperationID, method, at, r.status, r.raw)
			}
		}
	}
	if seen < 25 {
		t.Errorf("%d operations", seen)
	}
}

// panickingReads are reads that panic.
type panickingReads struct{ *platform }

func (panickingReads) Events(context.Context, domain.Actor, domain.SystemID, domain.EventQuery) ([]domain.Event, bool, error) {
	panic("no")
}

func (panickingReads) Head(context.Context, domain.Actor, domain.SystemID) (domain.Cursor, domain.Hash, error) {
	panic("no")
}

// A read that panics gives its place back.
func TestPanicKeepsNoPlace(t *testing.T) {
	t.Parallel()
	work, answers := controller(t, 6, 2, 1, time.Minute), controller(t, 1<<30, 1<<30, 1, time.Minute)
	b := setup(t, func(c *Config) {
		c.Reads, c.Sockets = panickingReads{c.Reads.(*platform)}, nilSockets{}
		c.Work, c.Answers = work, answers
	})
	for _, path := range []string{sol + "/events", sol + "/audit/head", "/api/v1/sockets"} {
		b.want(b.send(domain.RoleAdmin, "GET", path), 500, domain.CodeInternal)
	}
	testpeer.Eventually(t, "all work to end", func() bool { return work.Usage() == admission.Usage{} && answers.Usage() == admission.Usage{} })
}

// lateReads signals when a read begins to wait for the projection.
type lateReads struct {
	*platform
	began chan struct{}
}

func (l *lateReads) WaitForSystem(ctx context.Context, system domain.SystemID, at domain.Position) error {
	l.began <- struct{}{}
	return l.platform.WaitForSystem(ctx, system, at)
}

// Reads that wait for the projection do not count as reads in progress.
func TestWaitingForThePositionTakesNoTurn(t *testing.T) {
	t.Parallel()
	work := controller(t, 6, 2, 1, time.Minute)
	var reads *lateReads
	b := setup(t, func(c *Config) {
		reads = &lateReads{platform: c.Reads.(*platform), began: make(chan struct{}, 20)}
		c.Reads, c.Work = reads, work
	})
	b.seed()
	b.setLag(1)
	last := b.events[len(b.events)-1].Position.String()
	answers := make(chan reply, 20)
	for range 20 {
		go func() { answers <- b.send(domain.RoleAdmin, "GET", sol+"/equipment/e1?after-position="+last) }()
	}
	for range 20 {
		<-reads.began
	}
	b.want(b.send(domain.RoleAdmin, "GET", sol+"/devices"), 200, "")
	if u := work.Usage(); u != (admission.Usage{}) {
		t.Errorf("%+v", u)
	}
	b.setLag(0)
	var refused int
	for range 20 {
		if r := <-answers; r.status != 200 {
			b.want(r, 429, admission.CodeBusy)
			refused++
		}
	}
	if refused == 20 {
		t.Error("none was answered")
	}
}

// largeSnapshots writes snapshots of the given size, and counts them.
type largeSnapshots struct {
	size  int
	loads chan struct{}
}

func (s *largeSnapshots) Base(context.Context, domain.SystemID) (domain.Position, domain.Cursor, error) {
	return domain.Position{}, domain.Cursor{Seq: 1}, nil // never that of a cached snapshot, so that each request makes one
}

func (s *largeSnapshots) WriteSnapshot(_ context.Context, system domain.SystemID, write func([]byte) error) (domain.Cursor, error) {
	s.loads <- struct{}{}
	if err := write(fmt.Appendf(nil, `{"systemId":%q,"x":"`, system)); err != nil {
		return domain.Cursor{}, err
	}
	for left := s.size; left > 0; left -= 32 << 10 {
		if err := write([]byte(strings.Repeat("x", min(left, 32<<10)))); err != nil {
			return domain.Cursor{}, err
		}
	}
	return domain.Cursor{}, write([]byte(`"}`))
}

// Callers that do not read their answers hold a bounded number of bytes: further
// requests of their system get 429, other systems notice nothing, and the server frees
// the bytes when the callers are gone.
func TestUnreadAnswersAreBounded(t *testing.T) {
	t.Parallel()
	const size = 3 << 20 // more than the kernel buffers
	source := &largeSnapshots{size: size, loads: make(chan struct{}, 1000)}
	answers := controller(t, 40<<20, 10<<20, 100, 50*time.Millisecond)
	cache := snapshot.New(snapshot.Config{Source: source, Memory: answers, Timeout: 10 * time.Second})
	b := setup(t, func(c *Config) { c.Snapshots, c.Answers = cache, answers })
	t.Cleanup(cache.Close)
	var silent []net.Conn
	for range 30 {
		conn, err := net.Dial("tcp", b.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetReadBuffer(4096)
		fmt.Fprintf(conn, "GET %s/snapshot HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", sol, b.tokens[domain.RoleViewer])
		silent = append(silent, conn)
	}
	testpeer.Eventually(t, "the answers to be admitted", func() bool { return answers.Usage().Units > size && answers.Usage().Waiting == 0 })
	r := b.send(domain.RoleViewer, "GET", sol+"/snapshot")
	if r.status != 200 { // 200 if it came between two others
		b.want(r, 429, admission.CodeBusy)
	}
	if u := answers.Usage(); u.Units > 10<<20 {
		t.Errorf("%d bytes are held", u.Units)
	}
	header := http.Header{"Authorization": {"Bearer " + b.token(domain.RoleViewer, "centro-luna")}}
	other := b.exchange("GET", "/api/v1/systems/centro-luna/snapshot", header, http.NoBody)
	if b.want(other, 200, ""); len(other.raw) < size {
		t.Errorf("another system got %d bytes", len(other.raw))
	}
	for _, conn := range silent {
		_ = conn.Close()
	}
	testpeer.Eventually(t, "all answers to end", func() bool { return answers.Usage() == admission.Usage{} })
	if r := b.send(domain.RoleViewer, "GET", sol+"/snapshot"); r.status != 200 || !json.Valid([]byte(r.raw)) {
		t.Errorf("afterwards: %d", r.status)
	}
}

// sendPage writes a page of events in pieces, and stops when the caller is gone.
func TestSendPage(t *testing.T) {
	t.Parallel()
	events := make([]domain.Event, 50)
	for i := range events {
		events[i] = domain.Event{
			SystemID: "s", Position: domain.Position{Ms: uint64(i + 1)}, Data: json.RawMessage(`{"x":"` + strings.Repeat("x", 60<<10) + `"}`),
		}
	}
	var all []byte
	sendPage(events, true, func(piece []byte) bool {
		if len(piece) > pieceBytes {
			t.Errorf("a piece of %d bytes", len(piece))
		}
		all = append(all, piece...)
		return true
	})
	var page struct {
		Events []json.RawMessage
		Next   string
	}
	if err := json.Unmarshal(all, &page); err != nil || len(page.Events) != 50 || page.Next != "50-0" {
		t.Errorf("%d events, next %s, %v", len(page.Events), page.Next, err)
	}
	pieces := 0
	sendPage(events, true, func([]byte) bool { pieces++; return pieces < 3 })
	if pieces != 3 {
		t.Errorf("sendPage sent %d pieces to a caller that is gone", pieces)
	}
}

// A page of a past state also ends at a number of bytes.
func TestPagesOfThePastEndAtBytes(t *testing.T) {
	t.Parallel()
	list := make([]string, 100)
	for i := range list {
		list[i] = fmt.Sprintf("%03d", i)
	}
	id := func(s string) string { return s }
	var got []string
	for in, more := (&PageParams{Limit: 1000}), true; more; {
		page, next := paginate(in, list, id, func(string) int { return 1 << 20 })
		if len(page) != 4 {
			t.Fatalf("a page of %d", len(page))
		}
		got, in.After, more = append(got, page...), next, next != ""
	}
	if len(got) != 100 {
		t.Errorf("%d of 100", len(got))
	}
	if page, next := paginate(&PageParams{Limit: 10}, list, id, func(string) int { return 5 << 20 }); len(page) != 1 || next != "000" {
		t.Errorf("a large entry comes alone: %d, %s", len(page), next)
	}
}
