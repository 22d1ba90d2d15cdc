package forward

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/streams/presence"
)

// A process that comes back under its name at another address is found there: an
// address at which nobody answers is forgotten.
func TestPeerThatCannotBeReachedIsForgotten(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	address, err := url.Parse(gone.URL)
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	p := New(nil, "node-1", slog.New(slog.DiscardHandler))
	key := peerKey("node-2")
	p.nodes[key], p.asked = address, time.Now()
	request := httptest.NewRequest(http.MethodGet, "/socket.io/?EIO=4&transport=polling&sid="+key+".x", nil)
	handler := p.Elsewhere(request, key+".x")
	if handler == nil {
		t.Fatal("a peer that is known was not found")
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	if answer.Code != http.StatusBadRequest {
		t.Errorf("answered %d", answer.Code)
	}
	if p.nodes[key] != nil {
		t.Error("the address is still believed")
	}
}

// While the board cannot be read, what was known of it goes on being so.
func TestPeersAreKnownWhileTheBoardIsAway(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	client := redis.NewClient(&redis.Options{Addr: gone.Listener.Addr().String(), MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	logger := slog.New(slog.DiscardHandler)
	p := New(presence.New(client, "test", "node-1", logger), "node-1", logger)
	key, address := peerKey("node-2"), &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	p.nodes[key] = address // read a long time ago
	if got := p.find(key); got != address {
		t.Errorf("the peer is at %v", got)
	}
	if p.asked.IsZero() {
		t.Error("the board was not asked")
	}
}

// passingOn is a process that passes all requests on to a peer.
func passingOn(t *testing.T, says http.HandlerFunc) (p *Forwarder, here *httptest.Server) {
	t.Helper()
	peer := httptest.NewServer(says)
	t.Cleanup(peer.Close)
	address, err := url.Parse(peer.URL)
	if err != nil {
		t.Fatal(err)
	}
	p = New(nil, "node-1", slog.New(slog.DiscardHandler))
	key := peerKey("node-2")
	p.nodes[key], p.asked = address, time.Now()
	here = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.Elsewhere(r, key+".x").ServeHTTP(w, r)
	}))
	t.Cleanup(here.Close)
	return p, here
}

const patience = time.Minute

func get(ctx context.Context, url string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// At a stop nobody waits for what a peer may have to say some time.
func TestStopEndsWhatIsPassedOn(t *testing.T) {
	t.Parallel()
	waits := make(chan struct{}, 2)
	p, here := passingOn(t, func(w http.ResponseWriter, r *http.Request) {
		if !websocket.IsWebSocketUpgrade(r) {
			waits <- struct{}{}
			<-r.Context().Done()
			return
		}
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		waits <- struct{}{}
		_, _, _ = conn.ReadMessage() // until it is over
	})

	conn, answer, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(here.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer answer.Body.Close()
	polled := make(chan int, 1)
	go func() {
		status, err := get(t.Context(), here.URL)
		if err != nil {
			t.Error(err)
		}
		polled <- status
	}()
	<-waits
	<-waits
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		t.Errorf("waited for a peer: %v", err)
	}
	if status := <-polled; status != http.StatusBadRequest {
		t.Errorf("the poll was answered %d", status)
	}
	if _, _, err := conn.ReadMessage(); err == nil {
		t.Error("the WebSocket goes on")
	}
	if status, err := get(ctx, here.URL); status != http.StatusServiceUnavailable || err != nil {
		t.Errorf("afterwards: %d, %v", status, err)
	}
}
