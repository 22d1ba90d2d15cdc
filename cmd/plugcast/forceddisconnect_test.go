package main

import (
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/transport/disconnect"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// dropAnswer is the answer to a command that drops sockets.
type dropAnswer struct {
	CommandID  string
	Outcome    domain.Outcome
	Nodes      []rest.NodeReport
	Unanswered []string
}

// browsers are how many sockets of clients each node closed.
func (a dropAnswer) browsers() string {
	var counts []string
	for _, n := range a.Nodes {
		counts = append(counts, fmt.Sprint(n.Node, "=", n.BrowserSockets))
	}
	return fmt.Sprint(counts)
}

// trio is three processes with browser sockets of clinica-sol, and some of
// centro-luna.
type trio struct {
	*deployment
	nodes  map[string]*node
	sol    map[string][]*conversation // by node
	others []*conversation
}

// newTrio starts the processes. The one named c serves clients only, so that it
// can be frozen without holding up what the others do.
func newTrio(t *testing.T, each int) *trio {
	t.Helper()
	tr := &trio{deployment: newDeployment(t), nodes: map[string]*node{}, sol: map[string][]*conversation{}}
	for _, name := range []string{"a", "b", "c"} {
		roles := "gateway,worker"
		if name == "c" {
			roles = "gateway"
		}
		n := tr.start(t, "", "--node-name", name, "--roles", roles)
		tr.nodes[name] = n
		for range each {
			s := converse(t, n.base, testToken(t, domain.RoleViewer, "clinica-sol"))
			s.join("clinica-sol")
			tr.sol[name] = append(tr.sol[name], s)
		}
		other := converse(t, n.base, testToken(t, domain.RoleOperator, "centro-luna"))
		other.join("centro-luna")
		tr.others = append(tr.others, other)
	}
	tr.createConnection(t, "clinica-sol", "acc1")
	return tr
}

// createConnection appends what a creation does, and waits until it can be
// commanded.
func (d *deployment) createConnection(t *testing.T, system domain.SystemID, id domain.ConnectionID) {
	t.Helper()
	log, err := streams.Open(t.Context(), streams.Config{URL: d.redis.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e, err := domain.NewEvent(system, domain.ConnectionCreated{ConnectionID: id, Kind: domain.ConnectionShellyOutbound},
		domain.Cause{Actor: "test"})
	if err == nil {
		_, err = log.Append(t.Context(), []domain.Event{e}, domain.AppendOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// stop stops acc1 by way of node a, and waits for the outcome.
func (tr *trio) stop(t *testing.T, want int, wait string) (answer dropAnswer) {
	t.Helper()
	url := tr.nodes["a"].base + "/api/websocket/acc1/stop?wait=" + wait
	operator := testToken(t, domain.RoleOperator, "clinica-sol")
	testpeer.Eventually(t, "the connection to be known", func() bool {
		status, _, _, err := call(t.Context(), "GET", tr.nodes["a"].base+"/api/v1/systems/clinica-sol/connections/acc1", operator, nil)
		return err == nil && status == http.StatusOK
	})
	mustCall(t, want, "POST", url, operator, map[string]string{"reason": "holiday"}, &answer)
	return answer
}

// requireThrownOut demands that the socket is told why, and closed with 4409.
func (c *conversation) requireThrownOut(want thrownOut) {
	c.t.Helper()
	var told thrownOut
	c.await("forced-disconnect", &told)
	if code := c.ended(); code != 4409 || told != want {
		c.t.Errorf("closed with %d, told %+v, want %+v", code, told, want)
	}
}

// requireOpen demands that the socket answers.
func (c *conversation) requireOpen() {
	c.t.Helper()
	c.say("ping", nil)
	c.await("pong", nil)
}

// A stop drops the sockets of the system in every process and of no other system,
// and says what each process did.
func TestStopDropsSocketsEverywhere(t *testing.T) {
	t.Parallel()
	tr := newTrio(t, 20)
	answer := tr.stop(t, http.StatusOK, "20s")
	if answer.Outcome != domain.OutcomeCompleted || answer.browsers() != "[a=20 b=20 c=20]" || len(answer.Unanswered) > 0 {
		t.Errorf("the answer is %+v", answer)
	}
	for _, sockets := range tr.sol {
		for _, s := range sockets {
			s.requireThrownOut(thrownOut{Reason: "holiday", CommandID: answer.CommandID})
		}
	}
	for _, s := range tr.others {
		s.requireOpen()
	}
	// They may come back at once, and be thrown out again; a worker that serves no
	// clients answers too, and a node that left in order is not waited for.
	back := converse(t, tr.nodes["b"].base, testToken(t, domain.RoleViewer, "clinica-sol"))
	back.join("clinica-sol")
	tr.start(t, "", "--node-name", "w", "--roles", "worker")
	_ = tr.nodes["c"].process.Process.Signal(syscall.SIGTERM)
	<-tr.nodes["c"].ended
	testpeer.Eventually(t, "the worker to answer", func() bool {
		answer = tr.stop(t, http.StatusOK, "20s")
		return slices.ContainsFunc(answer.Nodes, func(n rest.NodeReport) bool { return n.Node == "w" })
	})
	if len(answer.Unanswered) > 0 || slices.ContainsFunc(answer.Nodes, func(n rest.NodeReport) bool { return n.Node == "c" }) {
		t.Errorf("the answer is %+v", answer)
	}
	if code := back.ended(); code != 4409 {
		t.Errorf("who came back was closed with %d", code)
	}
}

// A frozen process is named, and drops its sockets when it thaws: those that it
// had at the time of the command, and not those that came since.
func TestFrozenProcess(t *testing.T) {
	t.Parallel()
	tr := newTrio(t, 2)
	frozen := tr.nodes["c"].process.Process
	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wait := disconnect.ClockSkew + time.Second // so that who comes when it thaws comes clearly later
	answer := tr.stop(t, http.StatusAccepted, wait.String())
	if answer.Outcome != domain.OutcomeUnknown || answer.browsers() != "[a=2 b=2]" || !slices.Equal(answer.Unanswered, []string{"c"}) {
		t.Errorf("the answer is %+v", answer)
	}
	for _, name := range []string{"a", "b"} {
		for _, s := range tr.sol[name] {
			s.requireThrownOut(thrownOut{Reason: "holiday", CommandID: answer.CommandID})
		}
	}
	// The kernel takes the connection, and the process the handshake when it thaws.
	knocking := make(chan *conversation, 1)
	go func() {
		conn, err := dial(t.Context(), tr.nodes["c"].base, testToken(t, domain.RoleViewer, "clinica-sol"))
		if err != nil {
			t.Error(err)
			close(knocking)
			return
		}
		knocking <- &conversation{t: t, conn: conn}
	}()
	if err := frozen.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	late := <-knocking
	if late == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = late.conn.Close() })
	late.join("clinica-sol")
	for _, s := range tr.sol["c"] {
		s.requireThrownOut(thrownOut{Reason: "holiday", CommandID: answer.CommandID})
	}
	testpeer.Eventually(t, "its report in history", func() bool {
		return slices.ContainsFunc(history(t, tr.nodes["a"].base, "clinica-sol"), func(e domain.Event) bool {
			return e.Type == domain.TypeDisconnectCompleted && e.Actor == "node:c" && e.CausationID == answer.CommandID
		})
	})
	late.requireOpen()
	for _, s := range tr.others {
		s.requireOpen()
	}
}

// isBanned tries to come back, and reports whether that is refused as a ban
// does it.
func isBanned(t *testing.T, base, token string, why thrownOut) bool {
	t.Helper()
	c := converse(t, base, token)
	var status struct{ Connected bool }
	c.await("connection-status", &status)
	if status.Connected {
		_ = c.conn.Close()
		return false
	}
	c.requireThrownOut(why)
	return true
}

// Every process refuses a banned client until the ban ends, also a process that was
// started afterwards. Other clients come and go.
func TestBanKeepsOut(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	d := newDeployment(t)
	a, b := d.start(t, "", "--node-name", "a"), d.start(t, "", "--node-name", "b")
	staff, admin := testToken(t, domain.RoleStaff), testToken(t, domain.RoleAdmin, system)
	viewer, operator := testToken(t, domain.RoleViewer, system), testToken(t, domain.RoleOperator, system)
	auditor := testToken(t, domain.RoleAuditor, system)
	disconnect := func(token string, body map[string]any) (answer dropAnswer) {
		body["reason"] = "maintenance"
		mustCall(t, http.StatusOK, "POST", a.base+"/api/v1/disconnects?wait=20s", token, body, &answer)
		return answer
	}
	said := func(answer dropAnswer) thrownOut {
		return thrownOut{Reason: "maintenance", CommandID: answer.CommandID}
	}
	open := func(n *node, token string) *conversation {
		c := converse(t, n.base, token)
		c.join(system)
		return c
	}

	// A subject, everywhere, for long.
	watcher, bystander := open(b, viewer), open(b, operator)
	answer := disconnect(staff, map[string]any{"subject": "test-viewer", "banFor": "10m"})
	if answer.browsers() != "[a=0 b=1]" {
		t.Errorf("the answer is %+v", answer)
	}
	watcher.requireThrownOut(said(answer))
	later := d.start(t, "", "--node-name", "later")
	for _, n := range []*node{a, b, later} {
		if !isBanned(t, n.base, viewer, said(answer)) {
			t.Errorf("%s lets a subject in that is banned", n.base)
		}
		openStream(t, http.StatusForbidden, n.base, system, "", viewer)
	}
	mustCall(t, http.StatusOK, "GET", a.base+"/api/v1/systems/clinica-sol/devices", viewer, nil, nil) // HTTP is not banned
	bystander.requireOpen()

	// A role, in one system, by its admin: the socket stays, the room is closed.
	answer = disconnect(admin, map[string]any{"systemId": system, "role": "operator", "banFor": "10m"})
	bystander.requireThrownOut(said(answer))
	for _, n := range []*node{a, b, later} {
		c := converse(t, n.base, operator)
		c.say("join-system", map[string]any{"systemId": system})
		var no refusal
		if c.await("error", &no); no.Code != "banned" || no.RetryAfterMs <= 0 {
			t.Errorf("%s: joining answers %+v", n.base, no)
		}
		c.requireOpen()
		openStream(t, http.StatusForbidden, n.base, system, "", operator)
	}

	// Until it ends.
	open(later, auditor)
	const long = 2 * time.Second
	began := time.Now()
	answer = disconnect(staff, map[string]any{"subject": "test-auditor", "banFor": long.String()})
	if !isBanned(t, b.base, auditor, said(answer)) && time.Since(began) < long {
		t.Error("b lets a subject in that is banned")
	}
	testpeer.Eventually(t, "the ban to end", func() bool { return !isBanned(t, b.base, auditor, said(answer)) })
	open(later, auditor).requireOpen()
	open(a, admin).requireOpen()
}

// One socket is waited for by itself.
func TestWaitForOneSocket(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	here, there := d.start(t, "", "--node-name", "here"), d.start(t, "", "--node-name", "there")
	admin := testToken(t, domain.RoleAdmin, "clinica-sol")
	s := converse(t, there.base, testToken(t, domain.RoleViewer, "clinica-sol"))
	s.join("clinica-sol")
	var listed []domain.Socket
	testpeer.Eventually(t, "the socket to be listed", func() bool { listed = liveSockets(t, here.base, admin); return len(listed) == 1 })
	var answer dropAnswer
	mustCall(t, http.StatusOK, "DELETE", here.base+"/api/v1/sockets/"+listed[0].SocketID+"?wait=20s", admin, nil, &answer)
	if answer.Outcome != domain.OutcomeCompleted || answer.browsers() != "[there=1]" {
		t.Errorf("the answer is %+v", answer)
	}
	s.requireThrownOut(thrownOut{CommandID: answer.CommandID})
}
