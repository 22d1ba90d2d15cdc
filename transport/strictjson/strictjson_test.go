package strictjson_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/transport/strictjson"
)

func TestMembers(t *testing.T) {
	t.Parallel()
	got, err := strictjson.Members([]byte(` {"a" : 1, "A":[{"a":2,"a":3}], "": null} `))
	want := map[string]json.RawMessage{"a": json.RawMessage("1"), "A": json.RawMessage(`[{"a":2,"a":3}]`), "": json.RawMessage("null")}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for text, words := range map[string]string{
		`{"a":1,"\u0061":2}`: "a: appears twice", "{\"a\":\"\xff\"}": "is not UTF-8", `{"a":1}{}`: "not valid JSON", `[]`: "must be an object",
		"null": "must be an object", "": "is empty", strings.Repeat("[", 20_000): "nests deeper than 512 levels",
	} {
		if _, err := strictjson.Members([]byte(text)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%.40q: want %q, got %v", text, words, err)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	type inner struct {
		B *string `json:"b"`
	}
	for _, c := range []struct {
		text   string
		absent bool
		words  string // of the error, or "" for none
	}{
		{`{"list":["x"],"inner":{"b":"y"}}`, false, ""},
		{` {"list":null,"inner":{"b":null}}`, true, ""},
		{`{"list":null}`, false, "list: must be an array"},
		{`{"inner":{"b":null}}`, false, "inner.b: must not be null"},
		{`{"List":["x"]}`, true, "List: is not known"},
		{`{"inner":{"b":"x","b":"y"}}`, true, "inner.b: appears twice"},
		{`{"list":[1]}`, true, "list[0]: must not be number"},
		{`[]`, true, "all of it: must be an object"},
		{`{`, true, "all of it: it is not valid JSON"},
	} {
		var v struct {
			List  []string `json:"list"`
			Inner inner    `json:"inner"`
		}
		err := strictjson.Reader{Whole: "all of it", NullIsAbsent: c.absent}.Decode([]byte(c.text), "", &v)
		if c.words == "" && err != nil || c.words != "" && (err == nil || err.Error()[:min(len(c.words), len(err.Error()))] != c.words) {
			t.Errorf("%s: want %q, got %v", c.text, c.words, err)
		}
	}
}

func TestPick(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{ // NAME MORE, or an error
		`{"name":"a","more":[ 1],"x":{"name":2}}`: "a [ 1]",
		`{"Name":"b"}`:                        " ",
		`{"n\u0061me":"c","more":null}`:       "c null",
		`{"name":null}`:                       " ",
		`{"x":1,"x":2}`:                       " ",
		`{"name":"a","name":"b"}`:             "name: appears twice",
		`{"more":1,"name":"a","m\u006fre":1}`: "more: appears twice",
		`{"name":7}`:                          "name: json",
		`[]`:                                  "must be an object",
		`{"name":"a"`:                         "not valid JSON",
		"{\"name\":\"\xff\"}":                 "not UTF-8",
	} {
		var name string
		var more json.RawMessage
		err := strictjson.Pick([]byte(text), strictjson.Member{Name: "name", Into: &name}, strictjson.Member{Name: "more", Into: &more})
		if got := name + " " + string(more); err == nil && got != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}
