package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Requests for figures that come too fast cost no collecting, and are answered all the
// same.
func TestFloodOfScrapes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var collected atomic.Int64
		s := newScrapes(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(r.Header) > 0 {
				t.Errorf("made for %v, and shown to others", r.Header)
			}
			w.Header().Set("Content-Type", "text/plain")
			_, _ = fmt.Fprintf(w, "made %d\n", collected.Add(1))
		}))
		scrape := func() string {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
			r.Header.Set("Accept-Encoding", "gzip")
			s.ServeHTTP(w, r)
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/plain" {
				t.Errorf("status %d, %v", w.Code, w.Header())
			}
			return w.Body.String()
		}
		for i := range 5 {
			if got, want := scrape(), fmt.Sprintf("made %d\n", i+1); got != want {
				t.Errorf("%q, not %q: a scraper gets the figures of its time", got, want)
			}
		}
		for range 10_000 {
			scrape()
		}
		if n := collected.Load(); n > scrapesAtOnce+1 {
			t.Errorf("collected %d times", n)
		}
		time.Sleep(time.Second)
		if before := collected.Load(); scrape() != fmt.Sprintf("made %d\n", before+1) {
			t.Error("after the flood the figures are old")
		}
	})
}
