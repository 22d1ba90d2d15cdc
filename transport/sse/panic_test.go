package sse

import (
	"context"
	"net/http"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// explosive implements parts of the server that panic for some readers.
type explosive struct{ *face }

func (e explosive) AuthenticateStream(ctx context.Context, r *http.Request, system domain.SystemID) (domain.Actor, error) {
	switch r.Header.Get("X-Test") {
	case "authenticate":
		panic("a bad token")
	case "list":
		return domain.Actor{Subject: "explode", Role: domain.RoleViewer, Systems: []domain.SystemID{system}}, nil
	}
	return e.face.AuthenticateStream(ctx, r, system)
}

func (e explosive) Put(s domain.Socket) {
	if s.Subject == "explode" {
		panic("a bad socket")
	}
	e.face.Put(s)
}

// A panic in one stream ends that stream and leaves nothing of it behind. The other
// streams notice nothing.
func TestPanicEndsOneStream(t *testing.T) {
	t.Parallel()
	f := newFace(t, func(f *face, c *Config) { c.Parts.Authenticator, c.Parts.Registry = explosive{f}, explosive{f} })
	_, other := f.open(t, "?after=0-0")
	first := f.append("clinica-sol", "d1")
	check(t, next(t, other), first)
	for _, at := range []string{"authenticate", "list"} {
		request, err := http.NewRequestWithContext(t.Context(), "GET", f.url+"/api/v1/systems/clinica-sol/events/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Test", at)
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			t.Errorf("%s: the stream was answered with %d", at, response.StatusCode)
		}
	}
	second := f.append("clinica-sol", "d2")
	check(t, next(t, other), second)
	if n := f.server.clients.Len(); n != 1 || f.Len() != 1 {
		t.Errorf("%d streams are kept and %d listed, not 1", n, f.Len())
	}
}
