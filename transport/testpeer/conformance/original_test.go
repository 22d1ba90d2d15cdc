package conformance

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/transport/testpeer/nodejs"
)

// The checks are right only if the Socket.IO project's own server passes them.
func TestOriginal(t *testing.T) {
	t.Parallel()
	Run(t, Subject{Start: startOriginal, Original: true})
}

// startOriginal runs that server, and returns its address.
func startOriginal(t *testing.T, s Settings) string {
	t.Helper()
	dir := nodejs.Folder(t, "testdata", "node")
	nodejs.Install(t, dir)
	cmd := nodejs.Command(t, dir, "server.mjs")
	cmd.Env = append(os.Environ(), fmt.Sprintf("MAX_PAYLOAD=%d", s.MaxPayload), "ORIGIN="+s.Origin)
	for name, d := range map[string]time.Duration{
		"PING_INTERVAL": s.PingInterval, "PING_TIMEOUT": s.PingTimeout,
		"UPGRADE_TIMEOUT": s.UpgradeTimeout, "CONNECT_TIMEOUT": s.ConnectTimeout,
	} {
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s_MS=%d", name, d.Milliseconds()))
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // it is interrupted when the test is over
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server does not start: %v", err)
	}
	return strings.TrimSpace(address)
}
