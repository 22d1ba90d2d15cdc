package streams_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

// Entries that other programs wrote, or that should not exist, are read too.
func TestStrangeEntries(t *testing.T) {
	t.Parallel()
	url := redistest.URL(t)
	l := open(t, streams.Config{URL: url, Partitions: 1})
	client := redistest.Connect(t, url)
	good := []string{
		"id", "i", "type", "device-update", "version", "1", "systemId", "s", "time", "2026-11-24T10:00:00.5Z",
		"actor", "a", "correlationId", "c", "causationId", "", "data", "{}",
	}
	with := func(name, value string) []string {
		out := append([]string(nil), good...)
		for i := 0; i < len(out); i += 2 {
			if out[i] == name {
				out[i+1] = value
			}
		}
		return out
	}
	for _, c := range []struct {
		name   string
		fields []string
		system domain.SystemID
		reason string // "" if the entry can be decoded
	}{
		{"as we write it", good, "s", ""},
		{"in another order, with more and less", []string{
			"data", "{}", "extra", "x", "systemId", "s", "time", "2026-11-24T10:00:00Z", "version", "2", "type", "of-theirs", "id", "i",
		}, "s", ""},
		{"no system", with("systemId", ""), "", "systemId"},
		{"a bad system", with("systemId", "clinica sol"), "", "systemId"},
		{"nothing of ours", []string{"hello", "world"}, "", "systemId"},
		{"no id", with("id", ""), "s", "id"},
		{"no type", with("type", ""), "s", "type"},
		{"a bad version", with("version", "one"), "s", "version"},
		{"version 0", with("version", "0"), "s", "version"},
		{"a bad time", with("time", "yesterday"), "s", "time"},
		{"data that is no object", with("data", "[1]"), "s", "JSON"},
		{"broken data", with("data", `{"a":`), "s", "JSON"},
		{"data that is not UTF-8", with("data", "{\"a\":\"\xff\"}"), "s", "UTF-8"},
		{"an actor that is not UTF-8", with("actor", "\xff"), "s", "UTF-8"},
		{"an actor that is too long", with("actor", strings.Repeat("a", 513)), "s", "512"},
		{"a version that is too large", with("version", "4294967296"), "s", "version"},
		{"an actor with NUL", with("actor", "a\x00b"), "s", "NUL"},
		{"data with NUL", with("data", `{"a":{"b":["\u0000"]}}`), "s", "NUL"},
		{"data with half a pair", with("data", `{"a":"\ud800"}`), "s", "surrogate"},
		{"a time that cannot be written", with("time", "2026-11-24T10:00:00+24:00"), "s", "time"},
		{"a bad origin", append(slices.Clone(good), "origin", "a b"), "s", "origin"},
		{"an event of over 64 KiB", with("data", `{"a":"`+strings.Repeat("x", 1<<16)+`"}`), "s", "limited"},
		{"data of several lines", with("data", "{\n\"a\": 1.50 }\n"), "s", ""},
		{"much of it", with("data", strings.Repeat("x", 100_000)), "s", "JSON"},
	} {
		id, err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: l.Topic(0), Values: c.fields}).Result()
		if err != nil {
			t.Fatal(err)
		}
		at, _ := domain.ParsePosition(id)
		before := at
		before.Ms, before.N = at.Ms-1, 1<<62
		events, err := l.Read(t.Context(), 0, before, 100)
		if err != nil || len(events) == 0 {
			t.Fatalf("%s: %d events, %v", c.name, len(events), err)
		}
		e := events[len(events)-1]
		if e.SystemID != c.system || e.Position != at {
			t.Errorf("%s: %+v", c.name, e)
		}
		if c.reason == "" {
			if e.Type == domain.TypeUndecodable {
				t.Errorf("%s: %+v", c.name, e)
			}
			continue
		}
		var u domain.Undecodable
		if err := json.Unmarshal(e.Data, &u); err != nil || !strings.Contains(u.Reason, c.reason) ||
			len(e.AppendEnvelope(nil)) > domain.MaxEventBytes {
			t.Errorf("%s: %d bytes, reason %q, %v", c.name, len(e.Data), u.Reason, err)
		}
		if err := domain.CheckStorableJSON(e.Data); err != nil {
			t.Errorf("%s: %v: %s", c.name, err, e.Data)
		}
		if e.ID != "undecodable-"+id || e.Version != 1 || e.Type != domain.TypeUndecodable || !e.Time.Equal(time.UnixMilli(int64(at.Ms))) {
			t.Errorf("%s: %+v", c.name, e)
		}
		again, err := l.Read(t.Context(), 0, before, 100)
		if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", events) {
			t.Errorf("%s: the second reading differs", c.name)
		}
	}
}

func TestAppendRefusesWhatCouldNotBeRead(t *testing.T) {
	t.Parallel()
	l := open(t, streams.Config{})
	for name, change := range map[string]func(*domain.Event){
		"system":  func(e *domain.Event) { e.SystemID = "no system" },
		"type":    func(e *domain.Event) { e.Type = "" },
		"version": func(e *domain.Event) { e.Version = 0 },
		"actor":   func(e *domain.Event) { e.Actor = "\xff" },
		"cause":   func(e *domain.Event) { e.CausationID = "a\x00" },
		"data":    func(e *domain.Event) { e.Data = json.RawMessage(`{"a":1`) },
		"list":    func(e *domain.Event) { e.Data = json.RawMessage(`[]`) },
		"no data": func(e *domain.Event) { e.Data = nil },
		"bytes":   func(e *domain.Event) { e.Data = json.RawMessage("{\"a\":\"\xff\"}") },
	} {
		events := updates(sol, 2)
		change(&events[1])
		if _, err := l.Append(t.Context(), events, domain.AppendOptions{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if got, err := l.Read(t.Context(), l.Partition(sol), domain.Position{}, 10); err != nil || len(got) != 0 {
		t.Errorf("%d events were appended, %v", len(got), err)
	}
	if s := l.Stats(); s.Appends != 0 || s.AppendErrors != 0 { // the log was right to refuse
		t.Errorf("%+v", s)
	}
}
