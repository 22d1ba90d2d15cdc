package outbound

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// benchPing is short for the idle time below to have one ping of each device, and
// long enough for devices that do not answer it.
const benchPing = 5 * time.Second

// BenchmarkDevices connects 2,000 devices that have sent their status, and reports the cost
// of an idle one in this process: memory, including the half KiB of a bare client, and CPU
// for its pings. After that, each op is a frame with a change of power that is not worth
// an event.
func BenchmarkDevices(b *testing.B) {
	const devices = 2000
	ports := &benchPorts{key: credential.NewKey(), opened: make(chan struct{}, devices)}
	server, err := New(Config{MaxMessages: 1 << 30, PingEvery: benchPing, Policy: shelly.Policy{AtLeastEvery: time.Hour}},
		Parts{Credentials: ports, Known: ports, Events: ports, Heartbeats: ports, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(Pattern, server)
	web := httptest.NewServer(mux)
	defer web.Close()

	before := memory()
	conns := make([]net.Conn, devices)
	for i := range conns {
		if conns[i], err = bareDevice(b.Context(), strings.TrimPrefix(web.URL, "http://"), ports.key.Reveal(), i); err != nil {
			b.Fatal(err)
		}
		<-ports.opened
	}
	kib := float64(memory()-before) / 1024 / devices
	idle, cpu := time.Now(), cpuTime(b)
	<-time.After(benchPing)
	micros := float64((cpuTime(b) - cpu).Microseconds()) * benchPing.Seconds() / time.Since(idle).Seconds() / devices

	start := server.Stats().Frames
	b.ResetTimer()
	for i := range b.N {
		frame := fmt.Sprintf(`{"src":%q,"dst":"ws","method":"NotifyStatus","params":{"ts":1786033255.3,"switch:0":{"id":0,"apower":%d.5}}}`,
			benchID(i%devices), 400+i%3)
		if _, err := conns[i%devices].Write(textFrame(frame)); err != nil {
			b.Fatal(err)
		}
	}
	for server.Stats().Frames < start+int64(b.N) {
		if server.Stats().Sockets < devices {
			b.Fatal("a device was cut off")
		}
		<-time.After(100 * time.Microsecond)
	}
	b.StopTimer()
	b.ReportMetric(kib, "KiB/device")
	b.ReportMetric(micros, "µs-CPU/ping")
	if err := server.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
}

func benchID(i int) domain.DeviceID { return domain.DeviceID(fmt.Sprintf("shellyplugsg3-%012x", i)) }

// bareDevice connects and sends its status. It answers no pings, because the benchmark ends
// before that matters.
func bareDevice(ctx context.Context, address, key string, i int) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(conn, "GET /shelly/%s/%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", acc, key, address)
	for seen := ""; !strings.Contains(seen, "\r\n\r\n"); {
		var part [512]byte
		n, err := conn.Read(part[:])
		if err != nil {
			return nil, err
		}
		seen += string(part[:n])
	}
	full := fmt.Sprintf(`{"src":%q,"dst":"ws","method":"NotifyFullStatus","params":{"ts":1786033227.41,"switch:0":{"id":0,"output":true,`+
		`"apower":399.2,"voltage":240.8,"freq":50.0,"current":1.886,"aenergy":{"total":2574466.629,"by_minute":[7200.069,6121.044,5088.795],`+
		`"minute_ts":1786033200},"temperature":{"tC":46.3,"tF":115.4}},`+
		`"sys":{"mac":"8CBFEA9A1B2C","unixtime":1786033227,"uptime":751}}}`, benchID(i))
	_, err = conn.Write(textFrame(full))
	return conn, err
}

// textFrame is a text frame of a client, masked with zeros.
func textFrame(text string) []byte {
	frame := []byte{0x81, 0x80 | 126}
	if len(text) < 126 {
		frame[1] = 0x80 | byte(len(text))
	} else {
		frame = binary.BigEndian.AppendUint16(frame, uint16(len(text)))
	}
	return append(append(frame, 0, 0, 0, 0), text...)
}

// memory returns the size of heap and stacks after a garbage collection.
func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// benchPorts accepts every device and stores nothing.
type benchPorts struct {
	key    credential.Secret
	opened chan struct{}
}

func (p *benchPorts) Credential(context.Context, domain.ConnectionID, credential.Secret) (Credential, error) {
	return Credential{ConnectionRef: domain.ConnectionRef{System: system, ID: acc}, KeyHash: credential.Hash(p.key)}, nil
}

func (p *benchPorts) Channels(context.Context, domain.SystemID, domain.DeviceID) ([]*domain.Device, error) {
	return nil, nil
}

func (p *benchPorts) Append(_ context.Context, events []domain.Event, _ domain.AppendOptions) (domain.Appended, error) {
	return domain.Appended{Positions: make([]domain.Position, len(events))}, nil
}

func (p *benchPorts) Open(domain.DeviceRef, string, time.Duration)  { p.opened <- struct{}{} }
func (p *benchPorts) Alive(domain.DeviceRef, string, time.Duration) {}
func (p *benchPorts) Forget(domain.DeviceRef, string)               {}
func (p *benchPorts) Report(domain.DeviceRef, bool)                 {}
func (p *benchPorts) Close(domain.DeviceRef, string, time.Duration, domain.OfflineReason) {
}
