package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Report is what an attack saw.
type Report struct {
	Attempts int // what was tried
	Refused  int // answered with an error, or closed, by the server
	Accepted int // answered as an honest client is
	Failed   int // came to nothing on the way: no connection, no answer in time
}

func (r Report) String() string {
	return fmt.Sprintf("%d attempts: %d refused, %d accepted, %d failed", r.Attempts, r.Refused, r.Accepted, r.Failed)
}

// Attack is a hostile client, or a crowd of them. It makes n attempts at endpoint,
// like http://127.0.0.1:4000/socket.io/, and returns when ctx is over at the latest.
// When it has returned, all of its connections are closed.
type Attack func(ctx context.Context, endpoint string, n int) Report

// Attacks are all of them by name. A server must be as it was when one is over:
// its memory and goroutines back, its honest clients served.
func Attacks() map[string]Attack {
	return map[string]Attack{
		"frames over the limit":      LargeFrames,
		"bodies over the limit":      LargeBodies,
		"bodies that never end":      EndlessBodies,
		"ever new namespaces":        ManyNamespaces,
		"bad placeholders":           BadPlaceholders,
		"a flood of CONNECT packets": ConnectFlood,
		"handshakes never used":      UnusedHandshakes,
		"polls cut half open":        CutPolls,
		"polls left waiting":         HeldPolls,
		"probes never completed":     UnfinishedProbes,
		"events never completed":     UnfinishedEvents,
		"a reader that never reads":  NoReader,
	}
}

// crowd is how many attempts run at once.
const crowd = 32

type verdict int

const (
	failed verdict = iota
	refused
	accepted
)

// repeat makes n attempts, a crowd of them at a time.
func repeat(ctx context.Context, n int, attempt func(context.Context) verdict) Report {
	report := Report{}
	var (
		count sync.Mutex
		group errgroup.Group
	)
	group.SetLimit(crowd)
	for range n {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			v := attempt(ctx)
			count.Lock()
			defer count.Unlock()
			report.count(v)
			return nil
		})
	}
	_ = group.Wait() // an attempt has a verdict and no error
	return report
}

func (r *Report) count(v verdict) {
	r.Attempts++
	switch v {
	case refused:
		r.Refused++
	case accepted:
		r.Accepted++
	case failed:
		r.Failed++
	}
}

// overWebSocket is an attempt that opens a WebSocket session.
func overWebSocket(endpoint string, attack func(context.Context, *WebSocket) verdict) func(context.Context) verdict {
	return func(ctx context.Context) verdict {
		w, err := OpenWebSocket(ctx, endpoint)
		var status Refused
		switch {
		case errors.As(err, &status):
			return refused
		case err != nil:
			return failed
		}
		defer w.Close()
		return attack(ctx, w)
	}
}

// overPolling is an attempt that opens a polling session.
func overPolling(endpoint string, attack func(context.Context, *Polling) verdict) func(context.Context) verdict {
	return func(ctx context.Context) verdict {
		p, err := OpenPolling(ctx, endpoint)
		if err != nil {
			if ctx.Err() != nil {
				return failed
			}
			return refused
		}
		defer p.Close()
		return attack(ctx, p)
	}
}

// fate waits for the server to close w: that is its refusal.
func fate(ctx context.Context, w *WebSocket) verdict {
	for {
		switch frame, err := w.Next(ctx); {
		case errors.Is(err, ErrClosed):
			return refused
		case err != nil:
			return failed
		case strings.HasPrefix(frame.Data, "42"), strings.HasPrefix(frame.Data, "45"):
			return accepted
		}
	}
}

// LargeFrames sends a WebSocket message that is larger than the server allows.
func LargeFrames(ctx context.Context, endpoint string, n int) Report {
	return repeat(ctx, n, overWebSocket(endpoint, func(ctx context.Context, w *WebSocket) verdict {
		_ = w.Send("4" + strings.Repeat("x", w.Open.MaxPayload)) // may be cut
		return fate(ctx, w)
	}))
}

// LargeBodies posts a payload that is larger than the server allows.
func LargeBodies(ctx context.Context, endpoint string, n int) Report {
	return repeat(ctx, n, overPolling(endpoint, func(ctx context.Context, p *Polling) verdict {
		switch answer, err := p.Post(ctx, "4"+strings.Repeat("x", p.Open.MaxPayload)); {
		case ctx.Err() != nil:
			return failed
		case err != nil || answer.Status >= 400:
			return refused
		}
		return accepted
	}))
}

// EndlessBodies begins a POST, and cuts it once the server reads it.
func EndlessBodies(ctx context.Context, endpoint string, n int) Report {
	return repeat(ctx, n, overPolling(endpoint, func(ctx context.Context, p *Polling) verdict {
		conn, line, err := p.beginPost(ctx, p.Open.MaxPayload)
		if err != nil {
			return failed
		}
		defer func() { _ = conn.Close() }()
		if !strings.Contains(line, " 100 ") {
			return refused
		}
		return accepted
	}))
}

// beginPost sends the head of a POST, and returns the first line of the answer:
// 100 once the server waits for the body. Close the connection.
func (p *Polling) beginPost(ctx context.Context, length int) (conn net.Conn, line string, err error) {
	conn, err = p.send(ctx, http.MethodPost, fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\nExpect: 100-continue\r\n", length))
	if err != nil {
		return nil, "", err
	}
	if line, err = bufio.NewReader(conn).ReadString('\n'); err != nil {
		_ = conn.Close()
		return nil, "", fmt.Errorf("conformance: %w", err)
	}
	return conn, line, nil
}

// send sends the head of a request, with the lines of some headers, on a connection
// of its own.
func (p *Polling) send(ctx context.Context, method, headers string) (conn net.Conn, err error) {
	address, err := url.Parse(p.endpoint)
	if err != nil {
		return nil, fmt.Errorf("conformance: %w", err)
	}
	var dialer net.Dialer
	conn, err = dialer.DialContext(ctx, "tcp", address.Host)
	if err != nil {
		return nil, fmt.Errorf("conformance: %w", err)
	}
	deadline, _ := ctx.Deadline() // the zero time is none
	err = conn.SetDeadline(deadline)
	if err == nil {
		_, err = fmt.Fprintf(conn, "%s %s?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: %s\r\n%s\r\n",
			method, address.Path, url.QueryEscape(p.Open.SID), address.Host, headers)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("conformance: %w", err)
	}
	return conn, nil
}

// ManyNamespaces asks on one connection for n namespaces that do not exist. What
// comes after the server has closed the connection counts as refused.
func ManyNamespaces(ctx context.Context, endpoint string, n int) Report {
	return insist(ctx, endpoint, n, func(i int) string { return fmt.Sprintf("40/namespace-%d,", i) })
}

// ConnectFlood joins the main namespace and leaves it, n times on one connection.
func ConnectFlood(ctx context.Context, endpoint string, n int) Report {
	return insist(ctx, endpoint, n, func(i int) string {
		if i%2 == 0 {
			return "40"
		}
		return "41"
	})
}

// insist sends n packets on one connection as fast as it can.
func insist(ctx context.Context, endpoint string, n int, packet func(int) string) Report {
	report := Report{Attempts: n}
	w, err := OpenWebSocket(ctx, endpoint)
	if err != nil {
		report.Failed = n
		return report
	}
	defer w.Close()
	var sender sync.WaitGroup
	sender.Go(func() {
		for i := range n {
			if w.Send(packet(i)) != nil {
				return
			}
		}
		_ = w.Send("4end") // which ends the connection, behind all the answers
	})
	for {
		frame, err := w.Next(ctx)
		if err != nil {
			break
		}
		if strings.HasPrefix(frame.Data, "40") {
			report.Accepted++
		}
	}
	w.Close() // releases the sender
	sender.Wait()
	report.Refused = n - report.Accepted
	return report
}

// BadPlaceholders sends events whose placeholders stand for bytes that are not
// there, and events that announce more bytes than anybody needs.
func BadPlaceholders(ctx context.Context, endpoint string, n int) Report {
	packets := []string{
		`451-["message",{"_placeholder":true,"num":1}]`,
		`451-["message",{"_placeholder":true,"num":-1}]`,
		`451-["message",{"_placeholder":true,"num":1e300}]`,
		`451-["message"` + strings.Repeat(`,{"_placeholder":true,"num":7}`, 10_000) + `]`,
		`45999999999-["message"]`,
	}
	next := make(chan string, n)
	for i := range n {
		next <- packets[i%len(packets)]
	}
	return repeat(ctx, n, overWebSocket(endpoint, func(ctx context.Context, w *WebSocket) verdict {
		if _, err := w.Connect(ctx, "/", ""); err != nil {
			return failed
		}
		if _, err := w.Next(ctx); err != nil { // what the namespace says first
			return failed
		}
		_ = w.Send(<-next)
		_ = w.SendBinary([]byte("a")) // may be closed before
		return fate(ctx, w)
	}))
}

// UnusedHandshakes opens sessions by polling, and never comes back for them.
func UnusedHandshakes(ctx context.Context, endpoint string, n int) Report {
	return repeat(ctx, n, overPolling(endpoint, func(context.Context, *Polling) verdict { return accepted }))
}

// CutPolls polls and cuts the connection, the poll perhaps half written.
func CutPolls(ctx context.Context, endpoint string, n int) Report {
	return repeat(ctx, n, overPolling(endpoint, func(ctx context.Context, p *Polling) verdict {
		ctx, cut := context.WithCancel(ctx)
		var poll sync.WaitGroup
		poll.Go(func() { _, _ = p.Get(ctx) })
		answer, err := p.Post(ctx, "6")
		cut()
		poll.Wait()
		if err != nil || answer.Status != http.StatusOK {
			return refused
		}
		return accepted
	}))
}

// HeldPolls leaves polls waiting, and answers no ping, until the server ends them.
func HeldPolls(ctx context.Context, endpoint string, n int) Report {
	return repeat(ctx, n, overPolling(endpoint, func(ctx context.Context, p *Polling) verdict {
		for {
			switch answer, err := p.Get(ctx); {
			case ctx.Err() != nil:
				return failed
			case err != nil, answer.Status != http.StatusOK:
				return refused
			}
		}
	}))
}

// UnfinishedProbes starts upgrades and goes away in the middle of them.
func UnfinishedProbes(ctx context.Context, endpoint string, n int) Report {
	return repeat(ctx, n, overPolling(endpoint, func(ctx context.Context, p *Polling) verdict {
		w, err := Probe(ctx, p)
		if err != nil {
			return refused
		}
		defer w.Close()
		if err := w.Send("2probe"); err != nil {
			return failed
		}
		if _, err := w.Read(ctx); err != nil {
			return refused
		}
		return accepted
	}))
}

// UnfinishedEvents announces bytes, sends a part of them and goes away.
func UnfinishedEvents(ctx context.Context, endpoint string, n int) Report {
	return repeat(ctx, n, overWebSocket(endpoint, func(ctx context.Context, w *WebSocket) verdict {
		if _, err := w.Connect(ctx, "/", ""); err != nil {
			return refused
		}
		if err := errors.Join(w.Send(`452-["message",`+placeholder0+`,`+placeholder1+`]`),
			w.SendBinary(make([]byte, 100_000))); err != nil {
			return failed
		}
		return accepted
	}))
}

// NoReader sends n events of 10 kB that are answered with as much, on one
// connection, and reads no answer: until the server has ended it, or has stopped
// reading, which lasts until ctx is over.
func NoReader(ctx context.Context, endpoint string, n int) Report {
	report := Report{}
	w, err := OpenWebSocket(ctx, endpoint)
	if err == nil {
		defer w.Close()
		_, err = w.Connect(ctx, "/", "")
	}
	if err != nil {
		return Report{Attempts: n, Failed: n}
	}
	stop := context.AfterFunc(ctx, w.Close) // a write that hangs must end too
	defer stop()
	event := `42["message","` + strings.Repeat("x", 10_000) + `"]`
	for range n {
		switch err := w.Send(event); {
		case err == nil:
			report.count(accepted)
		case ctx.Err() != nil:
			report.count(failed)
			return report
		default:
			report.count(refused)
			return report
		}
	}
	return report
}
