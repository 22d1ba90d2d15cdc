package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
	"github.com/plugcast/plugcast/transport/testpeer/conformance"
)

// A viewer that connects, joins with the largest filter and is gone, again and again,
// leaves no more in Redis than one subject may, and a client beside it is recovered.
func TestViewerCannotFillRedis(t *testing.T) {
	t.Parallel()
	const system, loops = "clinica-llena", 150
	d := newDeployment(t)
	n := d.start(t, "")
	client := redistest.Connect(t, d.redis.URL())
	used := func() (bytes, keys int64) {
		names, err := client.Keys(t.Context(), "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			bytes += client.MemoryUsage(t.Context(), name, 0).Val()
		}
		return bytes, int64(len(names))
	}
	join := func(auth map[string]any, devices []string) (pid string) {
		t.Helper()
		ws, err := conformance.OpenWebSocket(t.Context(), n.base+"/socket.io/")
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		shown, _ := json.Marshal(auth)
		asked, _ := json.Marshal([]any{"join-system", map[string]any{"systemId": system, "devices": devices}})
		if err := ws.Send("40"+string(shown), "427"+string(asked)); err != nil {
			t.Fatal(err)
		}
		for {
			f, err := ws.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if answer, ok := strings.CutPrefix(f.Data, "40"); ok {
				var connected struct{ PID string }
				if err := json.Unmarshal([]byte(answer), &connected); err != nil {
					t.Fatal(err)
				}
				pid = connected.PID
			}
			if answer, ok := strings.CutPrefix(f.Data, "437"); ok {
				if !strings.Contains(answer, `"ok":true`) {
					t.Fatalf("the join is answered %s", answer)
				}
				return pid
			}
		}
	}
	eva := map[string]any{"token": testToken(t, domain.RoleViewer, system)}
	mallory := map[string]any{"token": testToken(t, domain.RoleOperator, system)} // another subject
	honest := join(eva, nil)
	bytesBefore, keysBefore := used()
	devices := make([]string, 256)
	for i := range devices {
		devices[i] = fmt.Sprintf("%0128d", i)
	}
	for range loops {
		join(mallory, devices)
	}
	bytes, keys := used()
	t.Logf("%d joins left %d bytes in %d keys", loops, bytes-bytesBefore, keys-keysBefore)
	if bytes-bytesBefore > 3<<19 || keys-keysBefore >= 40 { // 1.5 MiB, of the 5 MiB that were saved; the platform's own keys, of 16 partitions
		t.Errorf("%d joins left %d bytes in %d keys", loops, bytes-bytesBefore, keys-keysBefore)
	}
	eva["pid"] = honest
	if again := join(eva, nil); again != honest {
		t.Error("the client beside it is not recovered")
	}
}
