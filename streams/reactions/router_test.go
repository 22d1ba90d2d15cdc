package reactions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// Watermill says much at info, through loggers made from the one it was given.
func TestQuiet(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	logger := quiet(slog.New(slog.NewTextHandler(&out, nil))).With("a", 1).WithGroup("g")
	logger.Info("chatter")
	if logger.Warn("news"); strings.Contains(out.String(), "chatter") || !strings.Contains(out.String(), "news") {
		t.Errorf("logged %q", out.String())
	}
}

func TestReactions(t *testing.T) {
	t.Parallel()
	log, err := streams.Open(t.Context(), streams.Config{URL: redistest.URL(t), Partitions: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	heard := make(chan string, 100)
	failures := map[string]int{"flaky": 2, "hopeless": 1000}
	on := map[domain.EventType]Reaction{
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
			heard <- reason
			return nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		if err := Run(ctx, log, on, slog.New(slog.DiscardHandler), ready); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	<-ready

	want := []string{"first", "panic", "flaky", "hopeless", "last"}
	for _, reason := range want {
		events := make([]domain.Event, 2)
		for i, data := range []domain.Data{
			domain.DeviceUpdate{DeviceID: "d1"}, domain.DisconnectRequested{CommandID: "c", Reason: reason},
		} {
			if events[i], err = domain.NewEvent("clinica-sol", data, domain.Cause{Actor: "test"}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := log.Append(t.Context(), events, domain.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for len(got) < 3 {
		select {
		case reason := <-heard:
			got = append(got, reason)
		case <-time.After(30 * time.Second):
			t.Fatalf("heard only %v", got)
		}
	}
	if fmt.Sprint(got) != "[first flaky last]" {
		t.Errorf("heard %v: in order, retried, and past what cannot be done", got)
	}
}
