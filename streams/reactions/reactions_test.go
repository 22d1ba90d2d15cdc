package reactions

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func openLog(t *testing.T) *streams.Log {
	t.Helper()
	log, err := streams.Open(t.Context(), streams.Config{URL: redistest.URL(t), Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log
}

func TestReactions(t *testing.T) {
	t.Parallel()
	log := openLog(t)
	handled := make(chan string, 100)
	failures := map[string]int{"flaky": 2, "hopeless": 1000}
	on := map[domain.EventType]domain.Reaction{
		domain.TypeDisconnectRequested: func(_ context.Context, e domain.Event) error {
			data, err := e.Decode()
			if err != nil {
				return err
			}
			reason := data.(domain.DisconnectRequested).Reason
			if reason == "panic" {
				panic("a bad reaction")
			}
			if failures[reason] > 0 {
				failures[reason]--
				return errors.New("not now")
			}
			handled <- reason
			return nil
		},
	}
	dead := NewDeadLetters(log)
	d := New(Config{On: on, Log: log, DeadLetters: dead, Node: "here"})
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		if err := Follow(ctx, log, d, ready); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	<-ready

	want := []string{"first", "panic", "flaky", "hopeless", "last"}
	var positions []domain.Position
	for _, reason := range want {
		events := make([]domain.Event, 2)
		for i, data := range []domain.Data{
			domain.DeviceUpdate{DeviceID: "d1"}, domain.DisconnectRequested{CommandID: "c", Reason: reason},
		} {
			var err error
			if events[i], err = domain.NewEvent("clinica-sol", data, domain.Cause{Actor: "test"}); err != nil {
				t.Fatal(err)
			}
		}
		appended, err := log.Append(t.Context(), events, domain.AppendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		positions = append(positions, appended.Positions[1])
	}
	var got []string
	for len(got) < 3 {
		select {
		case reason := <-handled:
			got = append(got, reason)
		case <-time.After(30 * time.Second):
			t.Fatalf("handled only %v", got)
		}
	}
	if fmt.Sprint(got) != "[first flaky last]" {
		t.Errorf("handled %v, want them in order, retried, and without the permanent failures", got)
	}
	kept, err := dead.List(t.Context(), "", 10)
	if err != nil || len(kept) != 2 {
		t.Fatalf("kept %+v (%v)", kept, err)
	}
	for i, want := range []domain.Position{positions[3], positions[1]} {
		if l := kept[i]; l.Position != want || l.SystemID != "clinica-sol" || l.Node != "here" || l.Error == "" ||
			l.Type != domain.TypeDisconnectRequested {
			t.Errorf("kept %+v", l)
		}
	}
}

// Dead letters are bounded per system, and one system's do not push out another's.
func TestDeadLettersAreBounded(t *testing.T) {
	t.Parallel()
	log := openLog(t)
	dead := NewDeadLetters(log)
	put := func(system domain.SystemID, i int) {
		err := dead.Put(t.Context(), domain.DeadLetter{
			SystemID: system, EventID: fmt.Sprint(i), Time: time.Now(), Error: fmt.Sprintf("%0600d\xff", 0),
			Position: domain.Position{Ms: uint64(i)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put("quiet", 1)
	for i := range MaxPerSystem + 20 {
		put("busy", i)
	}
	of := func(system domain.SystemID, limit int) []domain.DeadLetter {
		list, err := dead.List(t.Context(), system, limit)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	busy := of("busy", 1000)
	if len(busy) != MaxPerSystem || busy[0].EventID != fmt.Sprint(MaxPerSystem+19) || len(busy[0].Error) > maxError {
		t.Errorf("%d are kept, the newest is %+v", len(busy), busy[0])
	}
	if n, all := len(of("quiet", 1000)), len(of("", 1000)); n != 1 || all != MaxPerSystem+1 || len(of("", 7)) != 7 ||
		len(of("nobody", 5)) != 0 {
		t.Errorf("%d of the quiet system, %d in all", n, all)
	}
}
