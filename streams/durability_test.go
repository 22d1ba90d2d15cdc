package streams_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestDurabilityIsChecked(t *testing.T) {
	t.Parallel()
	for url, warned := range map[string]bool{redistest.New(t).URL(): false, redistest.URL(t): true} {
		var out strings.Builder
		open(t, streams.Config{URL: url, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		if strings.Contains(out.String(), "appendfsync always") != warned {
			t.Errorf("warned: %v, want %v: %s", !warned, warned, out.String())
		}
	}
}
