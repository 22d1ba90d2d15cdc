package rest

import (
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// The server refuses a value that it cannot write as canonical JSON. It names the item
// and the field, and appends nothing.
func TestPublishRefusesWhatCannotBeWrittenAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, c := range map[string]struct{ field, says string }{
		"offset of 24 hours":    {`"deviceTime":"2026-11-29T03:00:00+24:00"`, "deviceTime"},
		"offset of 60 minutes":  {`"deviceTime":"2026-11-29T03:00:00+23:60"`, "deviceTime"},
		"year 10000 in UTC":     {`"deviceTime":"9999-12-31T23:59:59-01:00"`, "deviceTime"},
		"year -1 in UTC":        {`"deviceTime":"0000-01-01T00:00:00+01:00"`, "deviceTime"},
		"five digits of a year": {`"deviceTime":"10000-01-01T00:00:00Z"`, "deviceTime"},
		"decimal comma":         {`"deviceTime":"2026-11-29T03:00:00,5Z"`, "deviceTime"},
		"no time at all":        {`"deviceTime":"yesterday"`, "deviceTime"},
		"beyond float64":        {`"powerW":1e400`, "powerW"},
		"half a channel":        {`"channel":1.5`, "channel"},
		"huge channel":          {`"channel":1e300`, "channel"},
		"NUL in a text":         {`"name":"rack\u0000"`, "name"},
		"NUL in a list":         {`"errors":["a","\u0000"]`, "errors"},
		"NUL in attributes":     {`"attributes":{"a":{"b":["\u0000"]}}`, "attributes"},
		"NUL in a key":          {`"attributes":{"a\u0000":1}`, "attributes"},
		"half a pair":           {`"source":"\ud800"`, "source"},
		"second half first":     {`"attributes":{"a":"\udc00\ud800"}`, "attributes"},
		"half a pair, and more": {`"name":"\ud800\u0041"`, "name"},
		"bad UTF-8":             {"\"name\":\"\xff\"", "UTF-8"},
	} {
		batch := strings.TrimSuffix(oneItem, "]") + `,{"systemId":"clinica-sol","deviceId":"d2",` + c.field + `}]`
		r := b.send(service, "POST", publishPath, batch)
		b.want(r, 400, domain.CodeInvalidUpdate)
		if detail, _ := r.body["detail"].(string); r.body["index"] != 1.0 || !strings.Contains(detail, c.says) {
			t.Errorf("%s: %s", name, r.raw)
		}
	}
	if n := b.count(); n != 0 {
		t.Errorf("%d events were appended", n)
	}
}

// The server appends an update with its times in UTC, its whole numbers as whole
// numbers, and its attributes token for token.
func TestPublishIsCanonical(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for given, want := range map[string]string{
		`"deviceTime":"2026-11-29t03:00:00z"`:                `"deviceTime":"2026-11-29T03:00:00Z"`,
		`"deviceTime":"2026-11-29T03:00:00.123456789+01:00"`: `"deviceTime":"2026-11-29T02:00:00.123456789Z"`,
		`"channel":1.0`:                         `"channel":1`,
		`"channel":1e0`:                         `"channel":1`,
		`"name":"<a> & \u00e9 \/ \ud83d\ude00"`: `"name":"<a> & é / 😀"`,
		"\"attributes\": {\"b\":1.50, \n\"a\":\"<\\u00e9\", \"a\":1e400 }": `"attributes":{"b":1.50,"a":"<\u00e9","a":1e400}`,
	} {
		before := b.count()
		b.want(b.send(service, "POST", publishPath, `[{"systemId":"clinica-sol","deviceId":"d1",`+given+`}]`), 200, "")
		if got := string(b.events[before].Data); got != `{"deviceId":"d1",`+want+`}` {
			t.Errorf("%s is appended as %s", given, got)
		}
	}
}

// Every operation refuses a body with text that Postgres cannot store. The error names a
// byte order mark as such.
func TestBodiesWithTextsThatCannotBeKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, c := range []struct {
		role         domain.Role
		method, path string
		body, says   string
	}{
		{operator, "POST", sol + "/equipment", `{"equipmentId":"e9","name":"rack\u0000"}`, "name"},
		{operator, "POST", sol + "/equipment", `{"equipmentId":"e9","name":"x","attributes":{"\u0000":1}}`, "attributes"},
		{operator, "POST", sol + "/equipment", `{"equipmentId":"e9","name":"x","attributes":{"a":"\ud800"}}`, "attributes"},
		{operator, "PATCH", sol + "/equipment/e1", `{"location":"\u0000"}`, "location"},
		{domain.RoleAdmin, "POST", sol + "/connections", `{"connectionId":"c9","kind":"shelly-outbound","name":"a\u0000"}`, "name"},
		{operator, "POST", "/api/websocket/c1/stop", `{"reason":"\u0000"}`, "reason"},
		{domain.RoleAdmin, "POST", "/api/v1/disconnects", `{"systemId":"clinica-sol","reason":"\udc00"}`, "reason"},
		{operator, "POST", sol + "/equipment", "\xef\xbb\xbf" + `{"equipmentId":"e9","name":"x"}`, "byte order mark"},
		{operator, "POST", sol + "/equipment", `{"equipmentId":"e9","name":"x","name":"y"}`, "appears twice"},
		{operator, "POST", sol + "/equipment", `{"equipmentId":"e9","name":"x","n\u0061me":"y"}`, "appears twice"},
		{operator, "POST", sol + "/equipment", `{"equipmentId":"e9","name":"x","attributes":{},"attributes":{"a":1}}`, "appears twice"},
		{operator, "POST", sol + "/equipment", `{"equipmentId":"e9","name":{"a":1,"a":2}}`, "appears twice"},
		{service, "POST", publishPath, "\xef\xbb\xbf" + oneItem, "byte order mark"},
		{service, "POST", publishPath, "\xff\xfe[\x00]\x00", "byte order mark"},
		{service, "POST", publishPath, strings.Trim(oneItem, "[]") + "\n\xef\xbb\xbf" + strings.Trim(oneItem, "[]"), "byte order mark"},
	} {
		r := b.send(c.role, c.method, c.path, c.body)
		b.want(r, 400, CodeInvalidRequest)
		if !strings.Contains(r.raw, c.says) {
			t.Errorf("%s %s with %q: %s", c.method, c.path, c.body, r.raw)
		}
	}
	if n := b.count(); n != 0 {
		t.Errorf("%d events were appended", n)
	}
}

// The server refuses a bridged envelope with a malformed member, and names the member.
// The intake checks the data.
func TestBridgedEnvelopesAreChecked(t *testing.T) {
	t.Parallel()
	stub := &intakeStub{cursors: map[string]domain.Position{}}
	b := setup(t, func(c *Config) { c.Bridges = stub })
	const path = sol + "/bridge/events?source=far&after=0-0&through=9-0"
	long := strings.Repeat("x", 513)
	for _, c := range []struct{ from, to, says string }{
		{`"version":1`, `"version":-1`, "version"},
		{`"version":1`, `"version":0`, "version"},
		{`"version":1`, `"version":2147483648`, "version"},
		{`"version":1`, `"version":99999999999999999999`, "version"},
		{`"version":1`, `"version":1.5`, "version"},
		{`"version":1`, `"version":"1"`, "version"},
		{`"version":1`, `"version":null`, "version"},
		{`"version":1,`, ``, "version"},
		{`"version":1`, `"version":1,"version":2`, "version"},
		{`"seq":3`, `"seq":-3`, "seq"},
		{`"seq":3`, `"seq":3.5`, "seq"},
		{`"id":"a"`, `"id":""`, "id"},
		{`"id":"a"`, `"id":7`, "id"},
		{`"id":"a"`, `"id":"` + long + `"`, "id"},
		{`"id":"a"`, `"ID":"a"`, "id"},
		{`"event":"device-update"`, `"event":""`, "event"},
		{`"event":"device-update"`, `"event":"a\u0000"`, "event"},
		{`"systemId":"clinica-sol"`, `"systemId":"a b"`, "systemId"},
		{`"position":"7-0"`, `"position":7`, "position"},
		{`"position":"7-0"`, `"position":"x"`, "position"},
		{`18:00:00.123456Z"`, `18:00:00+24:00"`, "time"},
		{`2026-11-23T`, `99999-11-23T`, "time"},
		{`"2026-11-23T18:00:00.123456Z"`, `"0001-01-01T00:00:00Z"`, "time"},
		{`"2026-11-23T18:00:00.123456Z"`, `1795461046705`, "time"},
		{`"actor":"x"`, `"actor":"\u0000"`, "actor"},
		{`"actor":"x"`, `"actor":"\ud800"`, "actor"},
		{`"actor":"x"`, `"actor":["x"]`, "actor"},
		{`"correlationId":"k"`, `"correlationId":"` + long + `"`, "correlationId"},
		{`"correlationId":"k"`, `"causationId":"\u0000"`, "causationId"},
		{`"origin":"third"`, `"origin":"a b"`, "origin"},
		{`,"data":{"deviceId":"d1","relayOn":true}`, ``, "data"},
		{`{"event"`, "\xef\xbb\xbf{\"event\"", "byte order mark"},
	} {
		bad := strings.Replace(bridged, c.from, c.to, 1)
		if bad == bridged {
			t.Fatalf("%s is not in the sample", c.from)
		}
		r := b.send(domain.RoleBridge, "POST", path, bridged+"\n"+bad)
		b.want(r, 400, CodeInvalidRequest)
		if !strings.Contains(r.raw, c.says) || !strings.Contains(r.raw, "item 1") {
			t.Errorf("%s: %s", c.to, r.raw)
		}
	}
	if len(stub.imported) != 0 {
		t.Errorf("the intake got %+v", stub.imported)
	}
	odd := strings.Replace(bridged, `"relayOn":true`, "\n\"name\" : \"\\u0000\"", 1)
	b.want(b.send(domain.RoleBridge, "POST", path, strings.Replace(odd, `18:00:00.123456Z`, `19:00:00.1234567+01:00`, 1)), 200, "")
	if e := stub.imported[0].Events[0]; domain.FormatTime(e.Time) != "2026-11-23T18:00:00.123456Z" {
		t.Errorf("the intake got %+v", e)
	}
}
