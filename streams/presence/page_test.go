package presence

import (
	"fmt"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// page returns the ids of the sockets on a page, and the id that the next page begins after.
func (n node) page(t *testing.T, systems []domain.SystemID, after string, limit int) string {
	t.Helper()
	sockets, next, err := n.Page(t.Context(), systems, after, limit)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range sockets {
		ids = append(ids, s.SocketID)
	}
	return strings.Join(ids, " ") + " > " + next
}

// A page has the sockets of the rooms that are asked for, on all nodes, however many sockets
// there are in other rooms. A socket that changed rooms or left is on no page of its old room.
func TestPages(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	a, b := startNode(t, url, "a"), startNode(t, url, "b")
	const many = 2000
	for i := range many {
		a.Put(domain.Socket{SocketID: fmt.Sprintf("m%04d", i), Systems: []domain.SystemID{"busy"}})
	}
	a.Put(domain.Socket{SocketID: "s1", Systems: []domain.SystemID{"sol"}})
	b.Put(domain.Socket{SocketID: "s2", Systems: []domain.SystemID{"sol", "luna", "sola"}})
	b.Put(domain.Socket{SocketID: "s3", Systems: []domain.SystemID{"luna"}})
	b.Put(domain.Socket{SocketID: "s4"})
	testpeer.Eventually(t, "all are listed", func() bool { return b.listed(t, all) == many+4 })
	sol, both := []domain.SystemID{"sol"}, []domain.SystemID{"luna", "sol"}
	for _, c := range []struct {
		systems []domain.SystemID
		after   string
		limit   int
		want    string
	}{
		{sol, "", 10, "s1 s2 > "},
		{sol, "", 1, "s1 > s1"},
		{sol, "s1", 1, "s2 > "},
		{both, "", 2, "s1 s2 > s2"},
		{both, "s2", 2, "s3 > "},
		{[]domain.SystemID{"so"}, "", 10, " > "},
		{nil, "m1999", 10, "s1 s2 s3 s4 > "},
		{nil, "m1998", 2, "m1999 s1 > s1"},
	} {
		if got := a.page(t, c.systems, c.after, c.limit); got != c.want {
			t.Errorf("%v after %q: %q, want %q", c.systems, c.after, got, c.want)
		}
	}
	a.Put(domain.Socket{SocketID: "s1", Systems: []domain.SystemID{"luna"}})
	b.Remove("s2")
	testpeer.Eventually(t, "changes are seen", func() bool { return a.page(t, sol, "", 10) == " > " && a.page(t, both, "", 10) == "s1 s3 > " })
	if s, found, err := a.Find(t.Context(), "s3"); err != nil || !found || s.Node != "b" {
		t.Errorf("found %+v, %v, %v", s, found, err)
	}
	if s, found, err := a.Find(t.Context(), "s2"); err != nil || found {
		t.Errorf("found %+v, %v", s, err)
	}
	if err := a.client.Del(t.Context(), a.roomsKey("b")).Err(); err != nil {
		t.Fatal(err)
	}
	testpeer.Eventually(t, "what was lost is written again", func() bool { return a.page(t, both, "", 10) == "s1 s3 > " })
}
