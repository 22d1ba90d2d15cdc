package rpc

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly/status"
)

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		``:                                     status.ErrNotJSON,
		`[]`:                                   status.ErrNotJSON,
		`hello`:                                status.ErrNotJSON,
		`{"src":1,"method":"x"}`:               status.ErrNotJSON,
		`{"method":"NotifyStatus"}`:            ErrNoSource,
		`{"src":"a/b","method":"x"}`:           ErrNoSource,
		`{"src":"plug:1","method":"x"}`:        ErrNoSource,
		`{"src":"plug"}`:                       ErrNoFrame,
		`{"src":"plug","id":1}`:                ErrNoFrame,
		`{"src":"plug","result":{}}`:           ErrNoFrame,
		`{"src":"plug","id":null,"result":{}}`: ErrNoFrame,
		`{"src":"plug","method":"NotifyStatus","params":[1]}`:                                            status.ErrNotAnObject,
		`{"src":"plug` + "\xff" + `","method":"x"}`:                                                      ErrNoSource,
		`{"src":"plug","method":"x","params":` + strings.Repeat(`[`, 99) + strings.Repeat(`]`, 99) + `}`: status.ErrTooDeep,
		`{"src":"plug","method":"x","pad":"` + strings.Repeat("x", status.MaxBytes) + `"}`:               status.ErrTooLarge,
	} {
		if _, err := Decode([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%.80s: %v, want %v", text, err, want)
		}
	}
}

func TestDecodeKinds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Kind{
		`{"src":"plug","method":"NotifyStatus"}`:                             KindNotification,
		`{"src":"plug","method":"NotifyStatus","params":null}`:               KindNotification,
		`{"src":"plug","method":"NotifyStatus","id":7,"params":{}}`:          KindNotification, // a Wall Display
		`{"src":"plug","method":"NotifyFullStatus","id":"a"}`:                KindNotification,
		`{"src":"plug","method":"NotifyEvent","id":8}`:                       KindNotification,
		"\xef\xbb\xbf" + `{"src":"plug","method":"NotifyStatus"}`:            KindNotification,
		`{"src":"plug","method":"Sys.Ping","id":"a"}`:                        KindRequest,
		`{"src":"plug","id":3,"method":"","result":{}}`:                      KindRequest,
		`{"src":"plug","id":3,"result":null}`:                                KindResponse,
		`{"src":"plug","id":3,"result":{"was_on":true}}`:                     KindResponse,
		`{"src":"plug","id":3,"error":{"code":"x","message":7},"result":{}}`: KindResponse,
	} {
		if f, err := Decode([]byte(text)); err != nil || f.Kind != want {
			t.Errorf("%s: %v, %v, want %v", text, f.Kind, err, want)
		}
	}
}

func TestErrorsAreForPeople(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"code":-109,"message":"shutting down in 952 ms"}`:            "the device answered: shutting down in 952 ms",
		`{"code":401,"message":"{\"nonce\":1}"}`:                       "the device asks for a password",
		`{"code":503}`:                                                 "the device answered with error 503",
		`{"code":-1,"message":"a\nb` + strings.Repeat("é", 200) + `"}`: "the device answered: a b" + strings.Repeat("é", 97) + "…",
		`"no"`: "the device answered with error 0",
	} {
		if got := decodeError(json.RawMessage(raw)).Error(); got != want {
			t.Errorf("%.40s: %q, want %q", raw, got, want)
		}
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	const plug domain.DeviceID = "shellyplugsg3-8cbfea9a1b2c"
	for want, got := range map[string][]byte{
		`{"jsonrpc":"2.0","id":3,"src":"plugcast","dst":"shellyplugsg3-8cbfea9a1b2c",` +
			`"method":"Switch.Set","params":{"id":1,"on":true}}`: SwitchSet(3, plug, 1, true, 0),
		`{"jsonrpc":"2.0","id":3,"src":"plugcast","dst":"shellyplugsg3-8cbfea9a1b2c",` +
			`"method":"Switch.Set","params":{"id":0,"on":false,"toggle_after":1.5}}`: SwitchSet(3, plug, 0, false, 1500*time.Millisecond),
		`{"jsonrpc":"2.0","id":4,"src":"plugcast","dst":"shellyplugsg3-8cbfea9a1b2c",` +
			`"method":"Switch.GetStatus","params":{"id":0}}`: SwitchGetStatus(4, plug, 0),
		`{"jsonrpc":"2.0","id":5,"src":"plugcast","dst":"shellyplugsg3-8cbfea9a1b2c",` +
			`"method":"Shelly.GetStatus"}`: GetStatus(5, plug),
	} {
		if string(got) != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

func FuzzFrame(f *testing.F) {
	files, err := filepath.Glob("../testdata/samples/rpc-*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no samples")
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		frame, err := Decode(raw)
		if err != nil {
			if strings.ContainsRune(err.Error(), '\n') {
				t.Errorf("an error that shows the frame: %q", err)
			}
			return
		}
		if _, err := domain.ParseDeviceID(string(frame.Source)); err != nil {
			t.Error(err)
		}
		switch frame.Kind {
		case KindRequest:
			if !json.Valid(NoHandler(&frame)) {
				t.Errorf("answered %s", NoHandler(&frame))
			}
		case KindResponse:
			if (frame.Err == nil) == (frame.Result == nil) || frame.ID == nil {
				t.Errorf("a response is one of the two: %+v", frame)
			}
		case KindNotification:
			if frame.ID != nil {
				t.Errorf("a notification with an id: %+v", frame)
			}
		}
	})
}

// An answer repeats only short ids and methods of a device.
func TestNoHandlerIsShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	f, err := Decode([]byte(`{"src":"plug","method":"` + long + `","id":"` + long + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	if raw := NoHandler(&f); len(raw) > 1000 || !json.Valid(raw) {
		t.Errorf("answered with %d bytes", len(raw))
	}
}

// One bad byte in a text leaves the rest of the frame readable.
func TestDecodeMendsTexts(t *testing.T) {
	t.Parallel()
	f, err := Decode([]byte(`{"src":"plug","method":"NotifyStatus",` +
		`"params":{"switch:0":{"output":true,"source":"b` + "\xfctt" + `on\u0000\ud800"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	r := f.Params.Readings()
	if on, _ := r[0].RelayOn.Get(); !on || r[0].Source != domain.Some("b\uFFFDtton\uFFFD\uFFFD") {
		t.Errorf("%+v", r)
	}
	if e := decodeError([]byte(`{"code":-1,"message":"no\u0000pe\udfff"}`)); e.Message != "no\uFFFDpe\uFFFD" {
		t.Errorf("%q", e.Message)
	}
}
