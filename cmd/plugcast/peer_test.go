package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
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
	p := newPeers(nil, "node-1", slog.New(slog.DiscardHandler))
	key := peerKey("node-2")
	p.nodes[key], p.asked = address, time.Now()
	request := httptest.NewRequest(http.MethodGet, "/socket.io/?EIO=4&transport=polling&sid="+key+".x", nil)
	handler := p.elsewhere(request, key+".x")
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
