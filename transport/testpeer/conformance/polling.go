package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Separator stands between the packets of one payload.
const Separator = "\x1e"

// Open is the content of the packet which opens a session.
type Open struct {
	SID          string   `json:"sid"`
	Upgrades     []string `json:"upgrades"`
	PingInterval int      `json:"pingInterval"` // milliseconds
	PingTimeout  int      `json:"pingTimeout"`  // milliseconds
	MaxPayload   int      `json:"maxPayload"`   // bytes
}

// Answer is a whole HTTP response.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Packets are the packets of the answer's payload.
func (a Answer) Packets() []string { return strings.Split(a.Body, Separator) }

// Polling is a session over HTTP long-polling. Its requests may run concurrently;
// Next may not.
type Polling struct {
	Open Open

	endpoint string
	client   *http.Client
	unread   []string
}

// OpenPolling opens a session at endpoint, like http://127.0.0.1:4000/engine.io/.
// Close it.
func OpenPolling(ctx context.Context, endpoint string) (*Polling, error) {
	p := &Polling{endpoint: endpoint, client: &http.Client{Transport: &http.Transport{}}}
	answer, err := p.Get(ctx)
	if err != nil {
		return nil, err
	}
	packets := answer.Packets()
	if answer.Status != http.StatusOK || !strings.HasPrefix(packets[0], "0") {
		p.Close()
		return nil, fmt.Errorf("conformance: open a polling session: %d %q", answer.Status, answer.Body)
	}
	if err := json.Unmarshal([]byte(packets[0][1:]), &p.Open); err != nil {
		p.Close()
		return nil, fmt.Errorf("conformance: read the open packet: %w", err)
	}
	p.unread = packets[1:]
	return p, nil
}

// Get polls once: it returns when the server has something to say.
func (p *Polling) Get(ctx context.Context) (Answer, error) {
	return p.Do(ctx, http.MethodGet, nil, nil)
}

// Post sends packets as one payload.
func (p *Polling) Post(ctx context.Context, packets ...string) (Answer, error) {
	return p.Do(ctx, http.MethodPost, nil, strings.NewReader(strings.Join(packets, Separator)))
}

// Do makes any request on the session.
func (p *Polling) Do(ctx context.Context, method string, header http.Header, body io.Reader) (Answer, error) {
	query := url.Values{"EIO": {"4"}, "transport": {"polling"}}
	if p.Open.SID != "" {
		query.Set("sid", p.Open.SID)
	}
	return do(ctx, p.client, method, p.endpoint+"?"+query.Encode(), header, body)
}

// Next is the next packet; a ping is answered, and only the packet after it is
// returned.
func (p *Polling) Next(ctx context.Context) (string, error) {
	for {
		for len(p.unread) > 0 {
			packet := p.unread[0]
			if p.unread = p.unread[1:]; packet != "2" {
				return packet, nil
			}
			if answer, err := p.Post(ctx, "3"); err != nil || answer.Status != http.StatusOK {
				return "", fmt.Errorf("conformance: pong: %d %w", answer.Status, err)
			}
		}
		answer, err := p.Get(ctx)
		if err != nil {
			return "", err
		}
		if answer.Status != http.StatusOK {
			return "", fmt.Errorf("conformance: poll: %d %s", answer.Status, answer.Body)
		}
		p.unread = answer.Packets()
	}
}

// Close lets go of the session's connections. The server is not told.
func (p *Polling) Close() { p.client.CloseIdleConnections() }

func do(ctx context.Context, client *http.Client, method, address string, header http.Header, body io.Reader) (answer Answer, err error) {
	request, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return Answer{}, fmt.Errorf("conformance: %w", err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := client.Do(request)
	if err != nil {
		return Answer{}, fmt.Errorf("conformance: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("conformance: read the answer to %s: %w", method, err)
	}
	return Answer{response.StatusCode, response.Header, string(text)}, nil
}
