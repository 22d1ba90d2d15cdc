package pgserver

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/plugcast/plugcast/streams/childproc/scratch"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/parent"
)

func TestMain(m *testing.M) {
	os.Exit(parent.Main(m, func(ctx context.Context, dir string) (parent.Server, string, error) {
		server, err := Start(ctx, Config{Dir: dir})
		if err != nil {
			return nil, "", err
		}
		return server, server.URL(), nil
	}))
}

func TestPostgresDoesNotOutliveAKilledParent(t *testing.T) {
	t.Parallel()
	p := parent.Start(t, "", filepath.Join(scratch.For(t), "data"), nil)
	p.Kill(t)
	testpeer.Eventually(t, "the end of Postgres", func() bool { return !parent.Running(p.PID) })
}

func TestDataSurviveAKilledParent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(scratch.For(t), "data")
	const rounds = 3
	for range rounds {
		p := parent.Start(t, "", dir, nil)
		execute(t, p.Address, keep)
		p.Kill(t)
	}
	server := startServer(t, Config{Dir: dir})
	if got := query(t, server.URL(), kept); got != strconv.Itoa(rounds) {
		t.Errorf("%s rows, want %d", got, rounds)
	}
}

// An ordinary user's data stay that user's when root serves them in between.
func TestStartAsAnOrdinaryUserAndAsRoot(t *testing.T) {
	t.Parallel()
	credential, home, program := parent.Ordinary(t)
	dir := filepath.Join(home, "data")
	users := []*syscall.Credential{credential, nil, credential}
	for _, user := range users {
		p := parent.Start(t, program, dir, user)
		parent.RunsAs(t, p.PID, credential)
		execute(t, p.Address, keep)
		p.Kill(t)
		testpeer.Eventually(t, "the end of Postgres", func() bool { return !parent.Running(p.PID) })
	}
	server := startServer(t, Config{Dir: dir})
	if got := query(t, server.URL(), kept); got != strconv.Itoa(len(users)) {
		t.Errorf("%s rows, want %d", got, len(users))
	}
}
