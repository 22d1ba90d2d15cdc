package fences

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// process makes the fences of one process. All that have the same URL are one
// deployment.
func process(t *testing.T, url string) *Fences {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return New(client, "test", slog.New(slog.DiscardHandler))
}

func (f *Fences) raise(t *testing.T, fence Fence) {
	t.Helper()
	if err := f.Raise(t.Context(), fence); err != nil {
		t.Fatal(err)
	}
}

func (f *Fences) load(t *testing.T) {
	t.Helper()
	if err := f.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (f *Fences) keepsOut(actor domain.Actor, system domain.SystemID) bool {
	_, fenced := f.Check(actor, system)
	return fenced
}

var (
	soon  = time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	maria = domain.Actor{Subject: "maria", Role: domain.RoleViewer}
	ana   = domain.Actor{Subject: "ana", Role: domain.RoleViewer}
	boss  = domain.Actor{Subject: "boss", Role: domain.RoleAdmin}
)

// eventually waits for a condition that others bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("did not happen: %s", what)
		case <-poll.C:
		}
	}
}

// A fence keeps out who matches all that it names, in the process that raised it
// and in those that load it, whether or not they ran when it was raised.
func TestWhoIsKeptOut(t *testing.T) {
	t.Parallel()
	for name, one := range map[string]struct {
		fence Fence
		out   []domain.Actor
		in    []domain.Actor
		where domain.SystemID // that it is asked for
	}{
		"a subject, everywhere":            {Fence{Subject: "maria"}, []domain.Actor{maria}, []domain.Actor{ana, boss}, ""},
		"a subject, everywhere, at a join": {Fence{Subject: "maria"}, []domain.Actor{maria}, []domain.Actor{ana, boss}, "clinica-sol"},
		"a role, everywhere":               {Fence{Role: domain.RoleViewer}, []domain.Actor{maria, ana}, []domain.Actor{boss}, ""},
		"a role of a system":               {Fence{System: "clinica-sol", Role: domain.RoleViewer}, []domain.Actor{maria, ana}, []domain.Actor{boss}, "clinica-sol"},
		"all of a system":                  {Fence{System: "clinica-sol"}, []domain.Actor{maria, ana, boss}, nil, "clinica-sol"},
		"a subject in a role":              {Fence{System: "clinica-sol", Subject: "maria", Role: domain.RoleViewer}, []domain.Actor{maria}, []domain.Actor{ana, boss}, "clinica-sol"},
		"a subject in another role":        {Fence{Subject: "maria", Role: domain.RoleAdmin}, nil, []domain.Actor{maria, boss}, ""},
		"another system":                   {Fence{System: "centro-luna"}, nil, []domain.Actor{maria, ana, boss}, "clinica-sol"},
		"a system, at the door":            {Fence{System: "clinica-sol"}, nil, []domain.Actor{maria, ana, boss}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := redistest.URL(t)
			here, there := process(t, url), process(t, url)
			there.load(t)
			want := one.fence
			want.CommandID, want.Reason, want.Until = "c1", "maintenance", soon
			here.raise(t, want)
			here.raise(t, want)
			if there.any.Load() {
				t.Error("a process knows a fence that it has neither heard of nor loaded")
			}
			there.load(t)
			later := process(t, url)
			later.load(t)
			for _, f := range []*Fences{here, there, later} {
				for _, actor := range one.out {
					got, fenced := f.Check(actor, one.where)
					got.Until = got.Until.UTC()
					if !fenced || got != want {
						t.Errorf("%s: %+v %v, want %+v", actor.Subject, got, fenced, want)
					}
				}
				for _, actor := range one.in {
					if f.keepsOut(actor, one.where) {
						t.Errorf("%s is kept out", actor.Subject)
					}
				}
			}
		})
	}
}

// A fence ends by itself, everywhere, and of two for the same the longer counts.
func TestEnd(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	f := process(t, url)
	short := time.Now().Add(300 * time.Millisecond)
	f.raise(t, Fence{Subject: "maria", CommandID: "c1", Until: short})
	f.raise(t, Fence{Subject: "ana", CommandID: "c2", Until: soon})
	f.raise(t, Fence{Subject: "ana", CommandID: "c3", Until: short})
	f.raise(t, Fence{Subject: "boss", CommandID: "c4", Until: time.Now().Add(-time.Second)})
	if f.keepsOut(boss, "") {
		t.Error("a fence that is over keeps somebody out")
	}
	eventually(t, "maria may come back", func() bool { return !f.keepsOut(maria, "") })
	if time.Now().Before(short) {
		t.Error("before the fence ended")
	}
	later := process(t, url)
	later.load(t)
	if later.keepsOut(maria, "") || !later.keepsOut(ana, "") || !f.keepsOut(ana, "") {
		t.Error("a process that starts later sees it otherwise")
	}
	f.purge(time.Now())
	if n := len(f.systems[""]); n != 1 {
		t.Errorf("%d fences are kept", n)
	}
	f.purge(soon)
	if f.any.Load() || len(f.systems) > 0 {
		t.Error("what is over is kept")
	}
	if err := f.Raise(t.Context(), Fence{CommandID: "c5", Until: soon}); err == nil {
		t.Error("a fence for everybody is taken")
	}
}

// Too many fences push out those of the same system that end first, and nobody
// else's.
func TestBounds(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	f := process(t, url)
	subject := func(i int) domain.Actor { return domain.Actor{Subject: fmt.Sprint("s", i), Role: domain.RoleViewer} }
	f.raise(t, Fence{Subject: "maria", CommandID: "c", Until: soon.Add(-time.Minute)})
	f.raise(t, Fence{System: "centro-luna", Subject: "ana", CommandID: "c", Until: soon.Add(-time.Minute)})
	for i := range MaxPerSystem + 3 {
		f.raise(t, Fence{System: "clinica-sol", Subject: fmt.Sprint("s", i), CommandID: fmt.Sprint("c", i), Until: soon.Add(time.Duration(i) * time.Second)})
	}
	later := process(t, url)
	later.load(t)
	for _, one := range []*Fences{f, later} {
		for i := range MaxPerSystem + 3 {
			if got := one.keepsOut(subject(i), "clinica-sol"); got != (i >= 3) {
				t.Errorf("%d is kept out: %v", i, got)
			}
		}
		if !one.keepsOut(maria, "") || !one.keepsOut(ana, "centro-luna") {
			t.Error("a system pushes out the fences of others")
		}
	}
	for i := range MaxSystems + 2 {
		f.hold(entry{Fence: Fence{System: domain.SystemID(fmt.Sprint("x", i)), Until: soon.Add(time.Hour + time.Duration(i)*time.Second)}})
	}
	if n := len(f.systems); n != MaxSystems+1 || !f.keepsOut(maria, "") || f.keepsOut(ana, "centro-luna") || !f.keepsOut(ana, "x9") {
		t.Errorf("%d systems are kept", n)
	}
}

// While Redis is away a fence holds in this process, and it is written when
// Redis is back.
func TestRaiseWithoutRedis(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	f, other := process(t, url), process(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Raise(ctx, Fence{Subject: "maria", CommandID: "c1", Until: soon}); err == nil {
		t.Error("it says that it was written")
	}
	if !f.keepsOut(maria, "") {
		t.Error("the fence does not hold here")
	}
	if err := f.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	other.load(t)
	if !other.keepsOut(maria, "") {
		t.Error("the fence was not written")
	}
	if left := f.purge(time.Now()); len(left) > 0 {
		t.Errorf("%v would be written again", left)
	}
}

// The first load may be too early for a fence that others are just writing: Run
// loads again soon.
func TestRunClosesTheGap(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	f, other := process(t, url), process(t, url)
	f.load(t)
	other.raise(t, Fence{Subject: "maria", CommandID: "c1", Until: soon})
	learned := make(chan Fence, 10)
	f.Learned = func(fence Fence) { learned <- fence }
	f.raise(t, Fence{Subject: "ana", CommandID: "c2", Until: time.Now().Add(time.Hour)})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = f.Run(ctx) })
	defer running.Wait()
	defer cancel()
	eventually(t, "it is loaded", func() bool { return f.keepsOut(maria, "") })
	if fence := <-learned; fence.Subject != "maria" || fence.CommandID != "c1" {
		t.Errorf("learned of %+v", fence)
	}
	if f.load(t); len(learned) > 0 {
		t.Errorf("learned again of %+v", <-learned)
	}
}

// A check without any fence allocates nothing.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprint("fences=", n), func(b *testing.B) {
			f := New(nil, "test", slog.New(slog.DiscardHandler))
			for i := range n {
				f.hold(entry{Fence: Fence{System: domain.SystemID(fmt.Sprint("x", i%500)), Subject: fmt.Sprint("s", i), Until: soon}})
			}
			b.ReportAllocs()
			for b.Loop() {
				f.Check(maria, "clinica-sol")
			}
		})
	}
}
