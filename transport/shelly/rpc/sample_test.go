package rpc_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/rpc"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/samples.golden again")

const samples = "../testdata/samples/"

// TestSamples checks the result of each recorded message of the local RPC, of MQTT and of the
// first generation's HTTP: the device updates that follow, or the reason for none. Package
// cloud has the same test for the cloud's messages.
func TestSamples(t *testing.T) {
	t.Parallel()
	var golden strings.Builder
	files, err := filepath.Glob(samples + "*.json")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d samples (%v)", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasPrefix(name, "cloud-") {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&golden, "%s\n    %s\n", name, strings.ReplaceAll(meaning(t, name, raw), "\n", "\n    "))
	}
	const at = "testdata/samples.golden"
	if *rewrite {
		if err := os.WriteFile(at, []byte(golden.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), golden.String()); diff != "" {
		t.Errorf("the samples mean something else now (-golden +now):\n%s", diff)
	}
}

// meaning is the result of a sample.
func meaning(t *testing.T, name string, raw []byte) string {
	switch {
	case strings.HasPrefix(name, "mqtt-gen2-status"):
		return "one component, as MQTT sends it: " + updates(t, "shellyplugsg3-8cbfea9a1b2c",
			document(t, []byte(`{"switch:0":`+string(raw)+`}`)), nil)
	case strings.HasPrefix(name, "mqtt-"):
		return "refused: MQTT is not spoken here"
	case strings.HasPrefix(name, "gen1-"):
		return updates(t, "b923fa", document(t, raw), nil)
	}
	f, err := rpc.Decode(raw)
	switch {
	case err != nil:
		return "refused: " + err.Error()
	case f.Kind == rpc.KindRequest:
		return fmt.Sprintf("a request: answered with %s", rpc.NoHandler(&f))
	case f.Kind == rpc.KindResponse && f.Err != nil:
		return fmt.Sprintf("an answer to request %s: %v", f.ID, f.Err)
	case f.Kind == rpc.KindResponse:
		if doc, err := status.Parse(f.Result); err == nil && len(doc.Readings()) > 0 {
			return updates(t, string(f.Source), doc, nil)
		}
		return fmt.Sprintf("an answer to request %s: done", f.ID)
	case f.Method == rpc.NotifyFullStatus:
		return updates(t, string(f.Source), f.Params, nil)
	case f.Method == rpc.NotifyStatus:
		return updates(t, string(f.Source), before(t), f.Params)
	default:
		return f.Method + ": the device lives; no update"
	}
}

// before is the state of the device before a delta: off and cool.
func before(t *testing.T) status.Document {
	return document(t, []byte(`{"switch:0":{"id":0,"source":"init","output":false,"apower":2.5,`+
		`"errors":["undervoltage"],"aenergy":{"total":100}}}`))
}

func document(t *testing.T, raw []byte) status.Document {
	t.Helper()
	doc, err := status.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// updates returns the updates of a device after a full status and, unless it is nil, a delta:
// only those of the last one. A minute passes, so that no update waits.
func updates(t *testing.T, id string, full, delta status.Document) string {
	t.Helper()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	d := shelly.NewDevice(domain.ConnectionRef{System: "clinica-sol", ID: "acc1"}, domain.DeviceID(id), nil, shelly.Policy{})
	d.SetOnline(true)
	d.Full(full, time.Unix(1786033230, 0))
	got := d.Take(now)
	if delta != nil {
		d.Delta(delta, time.Unix(1786033230, 0))
		got = append(d.Take(now.Add(2*time.Second)), d.Take(now.Add(3*time.Minute))...)
	}
	if len(got) == 0 {
		return "nothing that is known of a channel changes: no update"
	}
	var texts []string
	for _, u := range got {
		raw, err := json.Marshal(u.DeviceUpdate)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, "device-update "+string(raw))
	}
	return strings.Join(texts, "\n")
}
