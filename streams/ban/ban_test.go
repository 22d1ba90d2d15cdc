package ban

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// process returns the bans of one process. All processes with the same URL are one deployment.
func process(t *testing.T, url string) *List {
	t.Helper()
	client := redistest.Connect(t, url)
	return New(client, "test", slog.New(slog.DiscardHandler))
}

func unlearned(domain.Ban) {}

func (list *List) raise(t *testing.T, ban domain.Ban) {
	t.Helper()
	if err := list.Raise(t.Context(), ban); err != nil {
		t.Fatal(err)
	}
}

func (list *List) load(t *testing.T) {
	t.Helper()
	if err := list.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (list *List) keepsOut(actor domain.Actor, system domain.SystemID) bool {
	_, banned := list.Check(actor, system)
	return banned
}

var (
	soon  = time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	maria = domain.Actor{Subject: "maria", Role: domain.RoleViewer}
	ana   = domain.Actor{Subject: "ana", Role: domain.RoleViewer}
	boss  = domain.Actor{Subject: "boss", Role: domain.RoleAdmin}
)

// A ban refuses the clients that match all of its fields, in the process that raised it and in
// those that load it, whether or not they ran when it was raised.
func TestWhoIsKeptOut(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]struct {
		ban   domain.Ban
		out   []domain.Actor
		in    []domain.Actor
		where domain.SystemID // passed to Check
	}{
		"a subject, everywhere":            {domain.Ban{Subject: "maria"}, []domain.Actor{maria}, []domain.Actor{ana, boss}, ""},
		"a subject, everywhere, at a join": {domain.Ban{Subject: "maria"}, []domain.Actor{maria}, []domain.Actor{ana, boss}, "clinica-sol"},
		"a role, everywhere":               {domain.Ban{Role: domain.RoleViewer}, []domain.Actor{maria, ana}, []domain.Actor{boss}, ""},
		"a role of a system": {domain.Ban{System: "clinica-sol", Role: domain.RoleViewer}, []domain.Actor{maria, ana},
			[]domain.Actor{boss}, "clinica-sol"},
		"all of a system": {domain.Ban{System: "clinica-sol"}, []domain.Actor{maria, ana, boss}, nil, "clinica-sol"},
		"a subject in a role": {domain.Ban{System: "clinica-sol", Subject: "maria", Role: domain.RoleViewer},
			[]domain.Actor{maria}, []domain.Actor{ana, boss}, "clinica-sol"},
		"a subject in another role": {domain.Ban{Subject: "maria", Role: domain.RoleAdmin}, nil, []domain.Actor{maria, boss}, ""},
		"another system":            {domain.Ban{System: "centro-luna"}, nil, []domain.Actor{maria, ana, boss}, "clinica-sol"},
		"a system, at the start":    {domain.Ban{System: "clinica-sol"}, nil, []domain.Actor{maria, ana, boss}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := redistest.URL(t)
			here, there := process(t, url), process(t, url)
			there.load(t)
			want := one.ban
			want.CommandID, want.Reason, want.Until = "c1", "maintenance", soon
			here.raise(t, want)
			here.raise(t, want)
			if there.any.Load() {
				t.Error("a process knows a ban that it has neither heard of nor loaded")
			}
			there.load(t)
			later := process(t, url)
			later.load(t)
			for _, list := range []*List{here, there, later} {
				for _, actor := range one.out {
					got, banned := list.Check(actor, one.where)
					got.Until = got.Until.UTC()
					if !banned || got != want {
						t.Errorf("%s: %+v %v, want %+v", actor.Subject, got, banned, want)
					}
				}
				for _, actor := range one.in {
					if list.keepsOut(actor, one.where) {
						t.Errorf("%s is kept out", actor.Subject)
					}
				}
			}
		})
	}
}

// Bans of a system do not refuse staff. Bans of the whole platform do.
func TestStaffIsKeptOutOfNoSystem(t *testing.T) {
	t.Parallel()
	list := process(t, redistest.URL(t))
	staff := domain.Actor{Subject: "maria", Role: domain.RoleStaff}
	for _, b := range []domain.Ban{
		{System: "sol-1", CommandID: "c1", Until: soon}, {System: "sol-1", Subject: "maria", CommandID: "c2", Until: soon},
		{System: "sol-1", Role: domain.RoleStaff, CommandID: "c3", Until: soon},
	} {
		list.raise(t, b)
	}
	if list.keepsOut(staff, "sol-1") || !list.keepsOut(maria, "sol-1") {
		t.Error("a ban of a system refuses staff, or refuses no client")
	}
	list.raise(t, domain.Ban{Subject: "maria", CommandID: "c4", Until: soon})
	if !list.keepsOut(staff, "sol-1") || !list.keepsOut(staff, "") {
		t.Error("a ban of the platform does not refuse staff")
	}
}

// A ban ends by itself in every process, and of two bans for the same target the longer one
// counts.
func TestEnd(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	list := process(t, url)
	short := time.Now().Add(300 * time.Millisecond).Truncate(time.Millisecond) // the precision of a ban
	list.raise(t, domain.Ban{Subject: "maria", CommandID: "c1", Until: short})
	list.raise(t, domain.Ban{Subject: "ana", CommandID: "c2", Until: soon})
	list.raise(t, domain.Ban{Subject: "ana", CommandID: "c3", Until: short})
	list.raise(t, domain.Ban{Subject: "boss", CommandID: "c4", Until: time.Now().Add(-time.Second)})
	if list.keepsOut(boss, "") {
		t.Error("a ban that is over refuses a client")
	}
	testpeer.Eventually(t, "maria may come back", func() bool { return !list.keepsOut(maria, "") })
	if time.Now().Before(short) {
		t.Error("the client was let in before the ban ended")
	}
	later := process(t, url)
	later.load(t)
	if later.keepsOut(maria, "") || !later.keepsOut(ana, "") || !list.keepsOut(ana, "") {
		t.Error("a process that starts later decides differently")
	}
	list.purge(time.Now())
	if n := len(list.systems[""]); n != 1 {
		t.Errorf("%d bans are kept", n)
	}
	list.purge(soon)
	if list.any.Load() || len(list.systems) > 0 {
		t.Error("bans that are over are kept")
	}
	if err := list.Raise(t.Context(), domain.Ban{CommandID: "c5", Until: soon}); err == nil {
		t.Error("a ban for all clients was accepted")
	}
}

// Bans beyond the bound push out those of the same system that end first, and none of another
// system.
func TestBounds(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	list := process(t, url)
	subject := func(i int) domain.Actor { return domain.Actor{Subject: fmt.Sprint("s", i), Role: domain.RoleViewer} }
	list.raise(t, domain.Ban{Subject: "maria", CommandID: "c", Until: soon.Add(-time.Minute)})
	list.raise(t, domain.Ban{System: "centro-luna", Subject: "ana", CommandID: "c", Until: soon.Add(-time.Minute)})
	for i := range MaxPerSystem + 3 {
		list.raise(t, domain.Ban{System: "clinica-sol", Subject: fmt.Sprint("s", i), CommandID: fmt.Sprint("c", i),
			Until: soon.Add(time.Duration(i) * time.Second)})
	}
	later := process(t, url)
	later.load(t)
	for _, one := range []*List{list, later} {
		for i := range MaxPerSystem + 3 {
			if got := one.keepsOut(subject(i), "clinica-sol"); got != (i >= 3) {
				t.Errorf("%d is kept out: %v", i, got)
			}
		}
		if !one.keepsOut(maria, "") || !one.keepsOut(ana, "centro-luna") {
			t.Error("a system pushes out the bans of others")
		}
	}
	for i := range MaxSystems + 2 {
		list.hold(entry{Ban: domain.Ban{System: domain.SystemID(fmt.Sprint("x", i)), Until: soon.Add(time.Hour + time.Duration(i)*time.Second)}})
	}
	if n := len(list.systems); n != MaxSystems+1 || !list.keepsOut(maria, "") || list.keepsOut(ana, "centro-luna") ||
		!list.keepsOut(ana, "x9") {
		t.Errorf("%d systems are kept", n)
	}
}

// While Redis is away a ban holds in this process. It is written once Redis is back.
func TestRaiseWithoutRedis(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	list, other := process(t, url), process(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := list.Raise(ctx, domain.Ban{Subject: "maria", CommandID: "c1", Until: soon}); err == nil {
		t.Error("Raise reported that the ban was written")
	}
	if !list.keepsOut(maria, "") {
		t.Error("the ban does not hold here")
	}
	if err := list.refresh(t.Context(), unlearned); err != nil {
		t.Fatal(err)
	}
	other.load(t)
	if !other.keepsOut(maria, "") {
		t.Error("the ban was not written")
	}
	if left := list.purge(time.Now()); len(left) > 0 {
		t.Errorf("%v would be written again", left)
	}
}

// The first load may be too early for a ban that another process is writing. Run loads again
// soon.
func TestRunClosesTheGap(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	list, other := process(t, url), process(t, url)
	list.load(t)
	other.raise(t, domain.Ban{Subject: "maria", CommandID: "c1", Until: soon})
	learned := make(chan domain.Ban, 10)
	learn := func(ban domain.Ban) { learned <- ban }
	list.raise(t, domain.Ban{Subject: "ana", CommandID: "c2", Until: time.Now().Add(time.Hour)})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = list.Run(ctx, learn) })
	defer running.Wait()
	defer cancel()
	testpeer.Eventually(t, "it is loaded", func() bool { return list.keepsOut(maria, "") })
	if ban := <-learned; ban.Subject != "maria" || ban.CommandID != "c1" {
		t.Errorf("learned of %+v", ban)
	}
	if err := list.fetch(t.Context(), learn); err != nil || len(learned) > 0 {
		t.Errorf("learned again of %d bans, %v", len(learned), err)
	}
}

// A ban that could not be written is written soon, not only with the next refresh: a process
// that starts in between would not know it.
func TestRunWritesWhatWasRefused(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	list, other := process(t, url), process(t, url)
	other.raise(t, domain.Ban{Subject: "ana", CommandID: "c1", Until: soon})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = list.Run(ctx, unlearned) })
	defer running.Wait()
	defer cancel()
	testpeer.Eventually(t, "the first refresh", func() bool { return list.keepsOut(ana, "") })
	refused, cancelled := context.WithCancel(t.Context())
	cancelled()
	if err := list.Raise(refused, domain.Ban{Subject: "maria", CommandID: "c2", Until: soon}); err == nil {
		t.Fatal("Raise reported that the ban was written")
	}
	testpeer.Eventually(t, "the ban is written", func() bool {
		other.load(t)
		return other.keepsOut(maria, "")
	})
}

// A check allocates nothing if there are no bans.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprint("bans=", n), func(b *testing.B) {
			list := New(nil, "test", slog.New(slog.DiscardHandler))
			for i := range n {
				list.hold(entry{Ban: domain.Ban{System: domain.SystemID(fmt.Sprint("x", i%500)), Subject: fmt.Sprint("s", i), Until: soon}})
			}
			b.ReportAllocs()
			for b.Loop() {
				list.Check(maria, "clinica-sol")
			}
		})
	}
}
