package domain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plugcast/plugcast/domain"
)

func TestParseEventFilter(t *testing.T) {
	t.Parallel()
	many := make([]string, 300)
	for i := range many {
		many[i] = fmt.Sprint("plug-", i)
	}
	for _, bad := range []struct {
		types, devices []string
		code           domain.Code
	}{
		{many[:65], nil, domain.CodeInvalidFilter},
		{[]string{strings.Join(many[:65], ",")}, nil, domain.CodeInvalidFilter},
		{nil, many[:257], domain.CodeInvalidFilter},
		{[]string{""}, nil, domain.CodeInvalidFilter},
		{[]string{"a,,b"}, nil, domain.CodeInvalidFilter},
		{[]string{"a,"}, nil, domain.CodeInvalidFilter},
		{[]string{" , "}, nil, domain.CodeInvalidFilter},
		{[]string{strings.Repeat("x", 65)}, nil, domain.CodeInvalidFilter},
		{[]string{"a b"}, nil, domain.CodeInvalidFilter},
		{[]string{"a\x00"}, nil, domain.CodeInvalidFilter},
		{[]string{"a\x1b[2J"}, nil, domain.CodeInvalidFilter},
		{[]string{"a\u200b"}, nil, domain.CodeInvalidFilter},
		{[]string{"\xff"}, nil, domain.CodeInvalidFilter},
		{nil, []string{"a b"}, domain.CodeInvalidDeviceID},
		{nil, []string{""}, domain.CodeInvalidDeviceID},
		{nil, []string{"a,,b"}, domain.CodeInvalidDeviceID},
	} {
		if _, err := domain.ParseEventFilter(bad.types, bad.devices); !domain.HasCode(err, bad.code) {
			t.Errorf("%.80q and %d devices: %v", bad.types, len(bad.devices), err)
		}
	}
	for _, good := range []struct {
		types, devices []string
		want           domain.EventFilter
	}{
		{nil, nil, domain.EventFilter{}},
		{[]string{"of-tomorrow"}, nil, domain.EventFilter{Types: []domain.EventType{"of-tomorrow"}}},
		{[]string{"a,b", "b", " a , c"}, []string{"d1", "d1,d2"}, domain.EventFilter{
			Types: []domain.EventType{"a", "b", "c"}, Devices: []domain.DeviceID{"d1", "d2"},
		}},
	} {
		if f, err := domain.ParseEventFilter(good.types, good.devices); err != nil || !cmp.Equal(f, good.want) {
			t.Errorf("%q, %q: %+v, %v", good.types, good.devices, f, err)
		}
	}
	f, err := domain.ParseEventFilter([]string{"device-update"}, many[:256])
	if err != nil || len(f.Types) != 1 || len(f.Devices) != 256 {
		t.Errorf("%d types and %d devices: %v", len(f.Types), len(f.Devices), err)
	}
}

func TestParseEventType(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{"device-update": true, "año.x/y": true, "": false, "a,b": false, " a": false, "a\n": false} {
		if got, err := domain.ParseEventType(name); (err == nil) != good || good && string(got) != name {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

func TestEventFilterMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		types, devices string
		passes         []string // TYPE:DEVICE
	}{
		{"", "", []string{"a:1", "b:1", "a:2", "a:"}},
		{"a", "", []string{"a:1", "a:2", "a:"}},
		{"", "1", []string{"a:1", "b:1"}},
		{"a", "1,3", []string{"a:1"}},
		{"c", "", nil},
	} {
		var f domain.EventFilter
		for name := range strings.FieldsFuncSeq(c.types, func(r rune) bool { return r == ',' }) {
			f.Types = append(f.Types, domain.EventType(name))
		}
		for name := range strings.FieldsFuncSeq(c.devices, func(r rune) bool { return r == ',' }) {
			f.Devices = append(f.Devices, domain.DeviceID(name))
		}
		for _, event := range []string{"a:1", "b:1", "a:2", "a:"} {
			name, device, _ := strings.Cut(event, ":")
			got := f.Match(domain.EventType(name), func() domain.DeviceID { return domain.DeviceID(device) })
			if want := slices.Contains(c.passes, event); got != want {
				t.Errorf("types %q, devices %q: %s passes: %v", c.types, c.devices, event, got)
			}
		}
	}
}
