package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
)

// batchOf returns a batch of n updates of clinica-sol, as an array or one per line.
func batchOf(n int, lines bool) []byte {
	var b bytes.Buffer
	for i := range n {
		switch {
		case i > 0 && !lines:
			b.WriteByte(',')
		case i > 0:
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, `{"systemId":"clinica-sol","deviceId":"shellyplugsg3-%012x","online":true,"relayOn":true,"powerW":399.2,`+
			`"voltageV":240.8,"currentA":1.886,"energyWh":2574466.629,"attributes":{"room":"3 \"left\"","n":[%d]}}`, i, i)
	}
	if lines {
		return b.Bytes()
	}
	return append(append([]byte{'['}, b.Bytes()...), ']')
}

func TestPublish(t *testing.T) {
	t.Parallel()
	b := setup(t)
	batch := `[{"systemId":"clinica-sol","deviceId":"d1","relayOn":true},
		{"systemId":"centro-luna","deviceId":"d9","relayOn":null,"attributes":{"floor":2}},
		{"systemId":"clinica-sol","deviceId":"d2","online":false}]`
	b.tokens[domain.RoleService] = b.token(domain.RoleService, "clinica-sol", "centro-luna")
	r := b.send(domain.RoleService, "POST", publishPath, batch)
	b.want(r, 200, "")
	want := fmt.Sprintf(`{"accepted":3,"positions":{"centro-luna":{"first":%[2]q,"last":%[2]q},"clinica-sol":{"first":%[1]q,"last":%[3]q}}}`,
		b.events[0].Position, b.events[1].Position, b.events[2].Position)
	if strings.TrimSpace(r.raw) != want {
		t.Errorf("got %s, want %s", r.raw, want)
	}
	if got := string(b.events[1].Data); got != `{"deviceId":"d9","relayOn":null,"attributes":{"floor":2}}` {
		t.Errorf("appended as %s", got)
	}
}

// The forms of a batch all have the same meaning.
func TestPublishForms(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body, contentType string
		accepted          float64
	}{
		"array":             {string(batchOf(3, false)), "application/json", 3},
		"lines":             {string(batchOf(3, true)), "application/x-ndjson", 3},
		"lines, undeclared": {string(batchOf(3, true)) + "\n\n", "application/json", 3},
		"array, undeclared": {string(batchOf(3, false)), "application/x-www-form-urlencoded", 3},
		"Windows lines":     {strings.ReplaceAll(string(batchOf(3, true)), "\n", "\r\n"), "application/x-ndjson", 3},
		"one object":        {string(batchOf(1, true)), "application/json", 1},
		"white space":       {" \n[ \n" + string(batchOf(1, true)) + "\t]\r\n", "application/json", 1},
		"empty array":       {"[ ]", "application/json", 0},
		"the most":          {string(batchOf(1000, false)), "application/json", 1000},
	} {
		b := setup(t)
		r := b.send(domain.RoleService, "POST", publishPath, c.body, "Content-Type: "+c.contentType)
		if r.status != 200 || r.body["accepted"] != c.accepted || b.count() != int(c.accepted) {
			t.Errorf("%s: %d %s, %d events", name, r.status, r.raw, b.count())
		}
	}
}

func TestPublishRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := bytes.Split(batchOf(1000, true), []byte("\n"))
	bad[499] = bytes.Replace(bad[499], []byte(`"powerW":399.2`), []byte(`"powerW":"lots"`), 1)
	for name, c := range map[string]struct {
		body  string
		role  domain.Role
		code  domain.Code
		index any
	}{
		"500th item is bad": {"[" + string(bytes.Join(bad, []byte(","))) + "]", domain.RoleService, domain.CodeInvalidUpdate, 499.0},
		"500th line is bad": {string(bytes.Join(bad, []byte("\n"))), domain.RoleService, domain.CodeInvalidUpdate, 499.0},
		"foreign system": {`[` + oneItem[1:len(oneItem)-1] + `,{"systemId":"centro-luna","deviceId":"d"}]`, domain.RoleService,
			domain.CodeForbidden, 1.0},
		"ill-formed system":     {`[{"systemId":"a b","deviceId":"d"}]`, domain.RoleService, domain.CodeInvalidSystemID, 0.0},
		"no device":             {`[{"systemId":"clinica-sol"}]`, domain.RoleService, domain.CodeInvalidDeviceID, 0.0},
		"role may not":          {oneItem, domain.RoleOperator, domain.CodeForbidden, nil},
		"too many":              {string(batchOf(1001, false)), domain.RoleService, domain.CodeBatchTooLarge, nil},
		"too many lines":        {string(batchOf(1001, true)), domain.RoleService, domain.CodeBatchTooLarge, nil},
		"not closed":            {`[{"systemId":"clinica-sol","deviceId":"d"}`, domain.RoleService, CodeInvalidRequest, nil},
		"cut off":               {`[{"systemId":"clinica-sol"`, domain.RoleService, domain.CodeInvalidUpdate, 0.0},
		"no comma":              {`[{"systemId":"clinica-sol","deviceId":"d"} {}]`, domain.RoleService, CodeInvalidRequest, nil},
		"comma at the end":      {`[{"systemId":"clinica-sol","deviceId":"d"},]`, domain.RoleService, domain.CodeInvalidUpdate, 1.0},
		"more behind the array": {`[] []`, domain.RoleService, CodeInvalidRequest, nil},
		"a number":              {`7`, domain.RoleService, domain.CodeInvalidUpdate, 0.0},
		"numbers":               {`[7]`, domain.RoleService, domain.CodeInvalidUpdate, 0.0},
		"white space":           {"  \n ", domain.RoleService, CodeInvalidRequest, nil},
		"a huge item":           {`[{"systemId":"` + strings.Repeat("x", maxItem) + `"}]`, domain.RoleService, domain.CodeInvalidUpdate, 0.0},
	} {
		r := b.send(c.role, "POST", publishPath, c.body)
		if r.status/100 != 4 || r.code() != string(c.code) || r.body["index"] != c.index {
			t.Errorf("%s: %d %s", name, r.status, r.raw)
		}
	}
	if n := b.count(); n != 0 {
		t.Errorf("%d events were appended", n)
	}
}

func TestPublishOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.send(domain.RoleService, "POST", publishPath, oneItem, "Idempotency-Key: k-1")
	again := b.send(domain.RoleService, "POST", publishPath, oneItem, "Idempotency-Key: k-1")
	if first.status != 200 || again.status != 200 || first.raw != again.raw || b.count() != 1 {
		t.Errorf("first %s, again %s, %d events", first.raw, again.raw, b.count())
	}
	if first.header.Get("Idempotency-Replayed") != "" || again.header.Get("Idempotency-Replayed") != "true" {
		t.Error("a replay does not say so, or something else does")
	}
	other := b.send(domain.RoleService, "POST", publishPath, strings.Replace(oneItem, "12.5", "13", 1), "Idempotency-Key: k-1")
	b.want(other, 422, domain.CodeKeyReused)
	for _, key := range []string{strings.Repeat("k", 256), "a b", "ñ"} {
		b.want(b.send(domain.RoleService, "POST", publishPath, oneItem, "Idempotency-Key: "+key), 400, CodeInvalidRequest)
	}
	if b.count() != 1 {
		t.Errorf("%d events", b.count())
	}
}

// White space, and the choice between an array and lines, do not make a batch another
// request.
func TestSameRequestUnderOneKey(t *testing.T) {
	t.Parallel()
	const (
		one     = `{"systemId":"clinica-sol","deviceId":"d1","powerW":12.5,"attributes":{"a":[1,"x y"],"b":{}}}`
		spaced  = "{ \"systemId\":\"clinica-sol\",\r\n\t\"deviceId\" : \"d1\", \"powerW\":12.5, \"attributes\":{\"a\":[1 ,\"x y\"],\"b\":{ }} }"
		two     = `{"systemId":"clinica-sol","deviceId":"d2"}`
		reorder = `{"deviceId":"d1","systemId":"clinica-sol","powerW":12.5,"attributes":{"a":[1,"x y"],"b":{}}}`
		keyed   = "Idempotency-Key: k"
	)
	b := setup(t)
	publish := func(body string) reply { return b.send(domain.RoleService, "POST", publishPath, body, keyed) }
	first := publish("[" + one + "," + two + "]")
	for _, body := range []string{
		"[" + one + " , \n" + two + " ]", " \t[" + spaced + "," + two + "]\n", one + "\n" + two + "\n", spaced + two, one + "\r\n\r\n" + two,
	} {
		if again := publish(body); again.raw != first.raw || again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%q: %d %s, after %s", body, again.status, again.raw, first.raw)
		}
	}
	for _, body := range []string{
		"[" + two + "," + one + "]", "[" + one + "]", "[" + one + "," + two + "," + two + "]", "[" + reorder + "," + two + "]",
		"[" + strings.Replace(one, "12.5", "12.50", 1) + "," + two + "]", "[" + strings.Replace(one, "x y", "xy", 1) + "," + two + "]", "[]",
	} {
		b.want(publish(body), 422, domain.CodeKeyReused)
	}
	b.want(publish("\ufeff["+one+","+two+"]"), 400, CodeInvalidRequest)
	if n := b.count(); n != 2 {
		t.Errorf("%d events were appended", n)
	}

	command := func(body string) reply { return b.send(domain.RoleOperator, "POST", sol+"/equipment", body, keyed) }
	first = command(`{"name":"Lamp","attributes":{"a":1,"b":[true]}}`)
	for _, body := range []string{
		"{ \"name\" : \"Lamp\",\n \"attributes\": { \"a\" : 1, \"b\":[ true ] } }\n", `{"attributes":{"a":1,"b":[true]},"name":"Lamp"}`,
	} {
		if again := command(body); again.status != 202 || again.raw != first.raw || again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%q: %d %s, after %s", body, again.status, again.raw, first.raw)
		}
	}
	for _, body := range []string{
		`{"name":"Lamp","attributes":{"b":[true],"a":1}}`, `{"name":"Lamp","attributes":{"a":1.0,"b":[true]}}`,
		`{"name":" Lamp","attributes":{"a":1,"b":[true]}}`,
	} {
		b.want(command(body), 422, domain.CodeKeyReused)
	}
	if n := b.count(); n != 3 {
		t.Errorf("%d events were appended", n)
	}
}

// The server charges each update to its system, and each request with its cost to a system of the
// caller, also a refused or empty one.
func TestPublishIsLimited(t *testing.T) {
	t.Parallel()
	b := setup(t)
	charged := map[string]int{}
	b.allow = func(flow domain.Flow, system domain.SystemID, n int) bool {
		charged[string(flow)+"/"+string(system)] += n
		return n < 5
	}
	b.want(b.send(domain.RoleService, "POST", publishPath, string(batchOf(4, false))), 200, "")
	r := b.send(domain.RoleService, "POST", publishPath, string(batchOf(5, false)))
	b.want(r, 429, limit.CodeRateLimited)
	if r.header.Get("Retry-After") != "2" { // 1.5 s, rounded up
		t.Errorf("Retry-After: %s", r.header.Get("Retry-After"))
	}
	b.want(b.send(domain.RoleService, "POST", publishPath, `[{"systemId":"centro-luna","deviceId":"d"}]`), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleViewer, "GET", "/api/v1/systems/centro-luna/devices"), 403, domain.CodeForbidden)
	b.want(b.send(domain.RoleService, "POST", publishPath, `[]`), 200, "")
	b.want(b.send(domain.RoleService, "POST", publishPath, `{`), 400, domain.CodeInvalidUpdate)
	b.want(b.send(domain.RoleViewer, "POST", publishPath, `[]`), 403, domain.CodeForbidden)
	if len(charged) != 2 || charged["device-updates/clinica-sol"] != 9 || charged["requests/clinica-sol"] != 8 { // the list counts two
		t.Errorf("charged %v", charged)
	}
	if b.count() != 4 {
		t.Errorf("%d events", b.count())
	}
}

// A body has the same meaning wherever the network splits it.
func TestBatchInPieces(t *testing.T) {
	t.Parallel()
	for _, lines := range []bool{false, true} {
		body := batchOf(3, lines)
		whole, err := readBatch(bytes.NewReader(body), nil)
		if err != nil {
			t.Fatal(err)
		}
		pieces, err := readBatch(iotest.OneByteReader(bytes.NewReader(body)), nil)
		if err != nil || fmt.Sprint(pieces) != fmt.Sprint(whole) {
			t.Errorf("lines %v: %v, %v", lines, pieces, err)
		}
	}
	broken := errors.New("connection reset")
	for n := range 40 {
		_, err := readBatch(io.MultiReader(bytes.NewReader(batchOf(1, false)[:n]), iotest.ErrReader(broken)), nil)
		if !errors.Is(err, broken) {
			t.Fatalf("broken after %d bytes: %v", n, err)
		}
	}
}

// itemReader agrees with a general JSON decoder on whether a body is a batch, and on the
// bytes of each item.
func FuzzReadBatch(f *testing.F) {
	for _, seed := range []string{
		`[]`, `[{}]`, `{}`, `[{},{}]`, "{}\n{}\n", `[{"a":"}]\\\"{"}]`, `[{"a":[{}]} , {"b":"\u007d"}]`, `[{}`, `[{},]`, `[,{}]`,
		`[{}{}]`, `{"a":"`, `[{]}]`, `[{}]x`, ` [ ] `, `{} [] {}`, `null`, `[null]`, "[{}]\n[{}]",
		string(batchOf(2, false)), string(batchOf(2, true)),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > maxItem {
			return
		}
		var cut [][]byte
		items := &itemReader{in: newItemBuffer(bytes.NewReader(body)), maxBytes: maxItem}
		var err error
		for err == nil {
			var item []byte
			if item, err = items.next(); err == nil {
				cut = append(cut, bytes.Clone(item))
				if !json.Valid(item) {
					err = errors.New("not JSON") // readBatch notices it when it parses the item
				}
			}
		}
		valid := errors.Is(err, io.EOF)
		want, wantValid := decodeBatch(body)
		if valid != wantValid {
			t.Fatalf("%q: valid %v (%v), a decoder says %v", body, valid, err, wantValid)
		}
		if valid && fmt.Sprintf("%s", cut) != fmt.Sprintf("%s", want) {
			t.Fatalf("%q: cut into %s, a decoder says %s", body, cut, want)
		}
		if updates, err := readBatch(bytes.NewReader(body), nil); err == nil && len(updates) != len(want) {
			t.Fatalf("%q: %d updates of %d items", body, len(updates), len(want))
		}
	})
}

// decodeBatch reads a batch with a general decoder, which is slower.
func decodeBatch(body []byte) (items []json.RawMessage, valid bool) {
	if trimmed := bytes.TrimLeft(body, " \n\r\t"); len(trimmed) > 0 && trimmed[0] == '[' {
		if json.Unmarshal(body, &items) != nil {
			return nil, false
		}
	} else {
		for dec := json.NewDecoder(bytes.NewReader(body)); ; {
			var item json.RawMessage
			if err := dec.Decode(&item); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, false
			}
			items = append(items, item)
		}
	}
	for _, item := range items {
		if item[0] != '{' {
			return nil, false
		}
	}
	return items, true
}

func BenchmarkReadBatch(b *testing.B) {
	for name, lines := range map[string]bool{"array": false, "ndjson": true} {
		b.Run(name, func(b *testing.B) {
			body := batchOf(1000, lines)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if updates, err := readBatch(bytes.NewReader(body), nil); err != nil || len(updates) != 1000 {
					b.Fatal(len(updates), err)
				}
			}
		})
	}
}

// BenchmarkCutBatch measures BenchmarkReadBatch without the parsing of the items.
func BenchmarkCutBatch(b *testing.B) {
	body := batchOf(1000, false)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		items := &itemReader{in: newItemBuffer(bytes.NewReader(body)), maxBytes: maxItem}
		for {
			if _, err := items.next(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
