package childproc

import (
	"context"
	"errors"
	"testing"
)

// A command that is killed because its caller was told to stop says that, and not
// only how it ended.
func TestRunSaysThatItWasStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if _, err := Run(ctx, Command{Path: "/bin/sleep", Args: []string{"60"}, Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if _, err := Run(t.Context(), Command{Path: "/bin/false", Dir: t.TempDir()}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a command that failed: %v", err)
	}
}
