package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminalPair returns the two ends of a terminal: what is written to the second is
// read from the first.
func terminalPair(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this machine has no terminals: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return screen, tty
}

func TestLogFormats(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	const escape = "\x1b["
	for _, c := range []struct {
		format           string
		onTerminal       bool
		isJSON, coloured bool
	}{
		{"auto", false, true, false}, {"auto", true, false, true}, {"text", false, false, false}, {"text", true, false, true},
		{"json", false, true, false}, {"json", true, true, false},
	} {
		var line string
		if c.onTerminal {
			screen, tty := terminalPair(t)
			newLogger(tty, "info", c.format).Warn("the plug is hot", "device", "plug-1")
			var err error
			if line, err = bufio.NewReader(screen).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		} else {
			var b bytes.Buffer
			newLogger(&b, "info", c.format).Warn("the plug is hot", "device", "plug-1")
			line = b.String()
		}
		if got := json.Valid([]byte(line)); got != c.isJSON {
			t.Errorf("%+v: JSON: %v: %q", c, got, line)
		}
		if got := strings.Contains(line, escape); got != c.coloured {
			t.Errorf("%+v: colours: %v: %q", c, got, line)
		}
		if !strings.Contains(line, "the plug is hot") || !strings.Contains(line, "plug-1") {
			t.Errorf("%+v: %q", c, line)
		}
	}
	t.Setenv("NO_COLOR", "1")
	screen, tty := terminalPair(t)
	newLogger(tty, "info", "auto").Warn("hot", "device", "\x1b[2Jplug")
	line, err := bufio.NewReader(screen).ReadString('\n')
	if err != nil || strings.Contains(line, escape) {
		t.Errorf("a terminal is told to do something: %q (%v)", line, err)
	}
}

// Programs that read the log find the times of events in it.
func TestLogTimesAreUTC(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	at := time.Date(2026, 11, 29, 3, 0, 0, 0, time.FixedZone("", 3600))
	newLogger(&b, "info", formatJSON).Info("seen", "at", at)
	var line struct{ Time, At string }
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line.At != "2026-11-29T02:00:00Z" || !strings.HasSuffix(line.Time, "Z") {
		t.Errorf("%s", b.String())
	}
}
