// Package legacyserver runs a real Node Socket.IO server that behaves as the system
// which plugcast replaces.
package legacyserver

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/transport/testpeer/nodejs"
)

// Options are how a server behaves.
type Options struct {
	Token    string // that clients must give; any when empty
	Recovery bool   // it keeps connection state
	Ack      bool   // it acknowledges what it gets
	Echo     string // "", "room" or "strip": what it does with what it gets
}

// Server is a server at one address, that can be killed and started again.
type Server struct {
	t       testing.TB
	options Options
	record  string
	port    string
	cmd     *exec.Cmd
}

// Got is an event that a server got from a client.
type Got struct {
	Event   string          `json:"event"`
	Payload json.RawMessage `json:"payload"`
}

// Emission is an event that a server is asked to emit to a room.
type Emission struct {
	Room  string `json:"room"`
	Event string `json:"event"`
	Args  []any  `json:"args"`
}

// Start starts a server on a free port. It ends with the test.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	nodejs.Install(t, nodejs.Folder(t, "node"))
	s := &Server{t: t, options: options, record: filepath.Join(t.TempDir(), "record"), port: "0"}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// Restart starts a server that was killed, on the same port.
func (s *Server) Restart() {
	s.t.Helper()
	cmd := nodejs.Command(s.t, nodejs.Folder(s.t, "node"), "server.js")
	cmd.Env = append(os.Environ(), "PORT="+s.port, "RECORD="+s.record, "TOKEN="+s.options.Token, "ECHO="+s.options.Echo)
	for name, on := range map[string]bool{"RECOVERY": s.options.Recovery, "ACK": s.options.Ack} {
		if on {
			cmd.Env = append(cmd.Env, name+"=1")
		}
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatalf("legacyserver: %v", err)
	}
	s.cmd = cmd
	line, err := bufio.NewReader(out).ReadString('\n')
	port, listens := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !listens {
		s.t.Fatalf("legacyserver: it says %q (%v)", line, err)
	}
	s.port = port
}

// Kill ends the server at once, as a crash does. Killing twice is fine.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Addr is host and port, which stay the same.
func (s *Server) Addr() string { return "127.0.0.1:" + s.port }

// URL is where clients connect.
func (s *Server) URL() string { return "http://" + s.Addr() }

// Emit sends events to rooms, in order.
func (s *Server) Emit(emissions ...Emission) { s.t.Helper(); s.post("emit", emissions, nil) }

// EmitBinary sends a device-update with an attachment.
func (s *Server) EmitBinary(room string) {
	s.t.Helper()
	s.post("binary", map[string]any{"room": room}, nil)
}

// Ask sends an event and waits until each member of the room has acknowledged it.
// It returns how many did.
func (s *Server) Ask(e Emission) int {
	s.t.Helper()
	var answer struct{ Replies int }
	s.post("ask", e, &answer)
	return answer.Replies
}

// Drop closes the transports of the room's members.
func (s *Server) Drop(room string) { s.t.Helper(); s.post("drop", map[string]any{"room": room}, nil) }

// Kick disconnects the room's members as a server does that wants them gone.
func (s *Server) Kick(room string) { s.t.Helper(); s.post("kick", map[string]any{"room": room}, nil) }

// Members is how many sockets are in the room.
func (s *Server) Members(room string) int {
	s.t.Helper()
	var answer struct{ Members int }
	s.post("members", map[string]any{"room": room}, &answer)
	return answer.Members
}

// Received is what clients have emitted since Start, over all restarts.
func (s *Server) Received() []Got {
	s.t.Helper()
	raw, err := os.ReadFile(s.record)
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	var all []Got
	for line := range bytes.Lines(raw) {
		var got Got
		if err := json.Unmarshal(line, &got); err != nil {
			break // it is being written
		}
		all = append(all, got)
	}
	return all
}

var client = &http.Client{Timeout: 20 * time.Second}

func (s *Server) post(what string, body, answer any) {
	s.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := client.Post(s.URL()+"/test/"+what, "application/json", bytes.NewReader(raw))
	if err == nil {
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			err = fmt.Errorf("HTTP %d", response.StatusCode)
		} else if answer != nil {
			err = json.NewDecoder(response.Body).Decode(answer)
		}
	}
	if err != nil {
		s.t.Fatalf("legacyserver: %s: %v", what, err)
	}
}
