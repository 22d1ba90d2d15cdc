package ws

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// BenchmarkSockets opens 2,000 sockets, 25 to a room, and reports the cost of an idle
// one in this process. The clients are bare connections; the figure includes the half
// KiB of each. Then it measures deliveries.
func BenchmarkSockets(b *testing.B) {
	const sockets, perRoom = 2000, 25
	source := clienttest.NewSource()
	logger := slog.New(slog.DiscardHandler)
	hub := clienttest.NewHub(b, source, rooms.Config{})
	auth := newAuthenticator()
	server, err := New(Config{Node: "bench"}, client.Parts{Rooms: hub, Authenticator: auth, Logger: logger})
	if err != nil {
		b.Fatal(err)
	}
	testpeer.Run(b, server.Run)
	web := httptest.NewServer(server)
	defer web.Close()
	address := strings.TrimPrefix(web.URL, "http://")
	system := func(i int) domain.SystemID { return domain.SystemID(fmt.Sprint("system-", i)) }

	before, goroutines := memory(), runtime.NumGoroutine()
	conns := make([]net.Conn, sockets)
	for i := range conns {
		if conns[i], err = bareClient(address, system(i/perRoom)); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	after := memory()
	perSocket := func(n int) float64 { return float64(n) / sockets }
	memoryEach, goroutinesEach := perSocket(int(after-before))/1024, perSocket(runtime.NumGoroutine()-goroutines)

	var received atomic.Int64
	for _, conn := range conns {
		go count(conn, &received)
	}
	for round := int64(0); round*sockets < int64(b.N); round++ {
		for i := range sockets / perRoom {
			source.Append(system(i), clienttest.Update("plug-1", float64(round)))
		}
		for received.Load() < (round+1)*sockets {
			time.Sleep(100 * time.Microsecond)
		}
	}
	b.StopTimer()
	b.ReportMetric(memoryEach, "KiB/socket")
	b.ReportMetric(goroutinesEach, "goroutines/socket")
	if err := server.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// memory returns the bytes of heap and stacks in use after a garbage collection.
func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// bareClient joins a system and reads the first frames.
func bareClient(address string, system domain.SystemID) (net.Conn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer staff\r\n\r\n", address)
	if err := readUntil(conn, "\r\n\r\n"); err != nil {
		return nil, err
	}
	join := fmt.Sprintf(`{"event":"join-system","data":{"systemId":%q}}`, system)
	frame := append([]byte{0x81, 0x80 | byte(len(join)), 0, 0, 0, 0}, join...)
	if _, err := conn.Write(frame); err != nil {
		return nil, err
	}
	return conn, readUntil(conn, `"recovered":false}}`)
}

// readUntil reads until the text has arrived. The server must send nothing behind it
// yet.
func readUntil(conn net.Conn, text string) error {
	var seen strings.Builder
	for !strings.Contains(seen.String(), text) {
		var part [512]byte
		n, err := conn.Read(part[:])
		if err != nil {
			return err
		}
		seen.Write(part[:n])
	}
	return nil
}

// count counts the events that arrive on a connection.
func count(conn net.Conn, received *atomic.Int64) {
	reader := bufio.NewReader(conn)
	for {
		var header [4]byte
		if _, err := io.ReadFull(reader, header[:2]); err != nil {
			return
		}
		size := int(header[1])
		if size == 126 {
			if _, err := io.ReadFull(reader, header[2:]); err != nil {
				return
			}
			size = int(header[2])<<8 | int(header[3])
		}
		payload, err := reader.Peek(size)
		if err != nil {
			return
		}
		if strings.HasPrefix(string(payload), `{"event":"device-update"`) {
			received.Add(1)
		}
		if _, err := reader.Discard(size); err != nil {
			return
		}
	}
}
