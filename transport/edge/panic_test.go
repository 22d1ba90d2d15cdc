package edge

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain/isolate"
)

// A handler that panics is answered with 500 and counted. One that had begun its
// answer is broken off, so that nobody takes half an answer for a whole one.
func TestHandlerPanics(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/at-once", func(http.ResponseWriter, *http.Request) { panic("a secret of ours") })
	mux.HandleFunc("/half-way", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("half", 10_000))
		panic("a secret of ours")
	})
	server := httptest.NewServer(Isolate(mux, slog.New(slog.DiscardHandler), BrokenPlainly))
	defer server.Close()
	before := isolate.Panics()["http"]
	response, err := http.Get(server.URL + "/at-once")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusInternalServerError || strings.Contains(string(body), "secret") || len(body) == 0 {
		t.Errorf("answered with %d %s", response.StatusCode, body)
	}
	if response, err = http.Get(server.URL + "/half-way"); err == nil {
		_, err = io.ReadAll(response.Body)
		_ = response.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looks like a whole one")
	}
	if n := isolate.Panics()["http"] - before; n != 2 {
		t.Errorf("%d panics are counted", n)
	}
}
