package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/testpeer"
)

// stopping is a node that is asked to stop while clients publish to it.
type stopping struct {
	node  *node
	token string

	mu    sync.Mutex
	acked map[domain.DeviceID]bool // devices whose update was acknowledged
}

// publish sends one update under a key, so that the HTTP client itself may send
// it again on another connection when the server closes an idle one.
func (s *stopping) publish(ctx context.Context, device domain.DeviceID) (status int, err error) {
	body := fmt.Sprintf(`[{"systemId":"clinica-sol","deviceId":%q}]`, device)
	status, _, _, err = call(ctx, "POST", s.node.base+"/api/v1/device-updates", s.token, body, "Idempotency-Key", string(device))
	if err == nil && status == http.StatusOK {
		s.mu.Lock()
		s.acked[device] = true
		s.mu.Unlock()
	}
	return status, err
}

// slowly begins a request and returns when the server waits for the rest of its
// body, which finish sends.
func (s *stopping) slowly(t *testing.T, device domain.DeviceID) (finish func() (int, error)) {
	t.Helper()
	reader, writer := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), "POST", s.node.base+"/api/v1/device-updates", reader)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	request.Header.Set("Expect", "100-continue")
	// The body is asked for only when the server has said that it reads it.
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: patience}}
	var status int
	answered := make(chan error, 1)
	go func() {
		response, err := client.Do(request)
		if err == nil {
			status = response.StatusCode
			err = response.Body.Close()
		}
		_ = reader.Close() // a refusal leaves nobody to write to
		answered <- err
	}()
	if _, err := io.WriteString(writer, `[{"systemId":"clinica-sol",`); err != nil {
		t.Fatalf("the request was answered early: %v, %v", <-answered, err)
	}
	return func() (int, error) {
		_, _ = fmt.Fprintf(writer, `"deviceId":%q}]`, device) // an answer that came early is the better report
		_ = writer.Close()
		err := <-answered
		if err == nil && status == http.StatusOK {
			s.acked[device] = true
		}
		return status, err
	}
}

// A process that is asked to stop tells its clients, finishes what it has begun,
// keeps what it acknowledged, and ends well.
func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	const system domain.SystemID = "clinica-sol"
	d := newDeployment(t)
	s := &stopping{node: d.start(t, ""), token: testToken(t, domain.RoleService, system), acked: map[domain.DeviceID]bool{}}
	other := d.start(t, "")
	viewer := testToken(t, domain.RoleViewer, system)
	socket := converse(t, s.node.base, viewer)
	socket.join(system)
	stream := openStream(t, http.StatusOK, s.node.base, system, "", viewer)
	finish := s.slowly(t, "slow")

	const callers, before = 4, 100
	var group sync.WaitGroup
	var published atomic.Int64
	for c := range callers {
		group.Go(func() {
			for i := 0; ; i++ {
				status, err := s.publish(t.Context(), domain.DeviceID(fmt.Sprintf("plug-%d-%d", c, i)))
				if err != nil {
					return // it listens no more
				}
				if status != http.StatusOK && status != http.StatusServiceUnavailable {
					t.Errorf("status %d", status)
				}
				published.Add(1)
			}
		})
	}
	testpeer.Eventually(t, "updates to flow", func() bool { return published.Load() >= before })
	if err := s.node.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := socket.ended(); code != 1012 {
		t.Errorf("the socket was closed with %d", code)
	}
	for name, _, more := stream.next(); more; name, _, more = stream.next() {
		if name != string(domain.TypeDeviceUpdate) {
			t.Errorf("the stream said %s", name)
		}
	}
	if err := stream.lines.Err(); err != nil {
		t.Errorf("the stream broke off: %v", err)
	}
	group.Wait()
	if status, err := finish(); err != nil || status != http.StatusOK {
		t.Errorf("a request under way got %d, %v", status, err)
	}
	<-s.node.ended
	if code := s.node.process.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	testpeer.Eventually(t, "history to have everything", func() bool { return len(history(t, other.base, system)) >= len(s.acked) })
	found := map[domain.DeviceID]int{}
	for _, e := range history(t, other.base, system) {
		data, err := e.Decode()
		if err != nil {
			t.Fatal(err)
		}
		found[data.(domain.DeviceUpdate).DeviceID]++
	}
	for device := range s.acked {
		if found[device] != 1 {
			t.Errorf("the acknowledged update of %s is there %d times", device, found[device])
		}
	}
}
