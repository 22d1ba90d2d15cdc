package credential

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// testKey returns a key for each letter, in base64.
func testKey(letter string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, KeySize)))
}

func ring(t *testing.T, keys ...string) Keyring {
	t.Helper()
	k, err := ParseKeyring(strings.Join(keys, ","))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const plain = "the-auth-code-of-an-account"

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	k := ring(t, testKey("a"))
	one, err := k.Seal("sol", "acc1", []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	two, _ := k.Seal("sol", "acc1", []byte(plain))
	if bytes.Equal(one.Sealed, two.Sealed) {
		t.Error("two seals of one secret are equal: the nonce is not random")
	}
	if len(one.KeyID) != 8 || bytes.Contains(one.Sealed, []byte(plain[:8])) {
		t.Errorf("%+v", one)
	}
	if got, err := k.Open("sol", "acc1", one); err != nil || string(got) != plain {
		t.Errorf("%q, %v", got, err)
	}
	changed := Sealed{one.KeyID, bytes.Clone(one.Sealed)}
	changed.Sealed[len(changed.Sealed)-1] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"of another connection": func() ([]byte, error) { return k.Open("sol", "acc2", one) },
		"of another system":     func() ([]byte, error) { return k.Open("luna", "acc1", one) },
		"of ids cut elsewhere":  func() ([]byte, error) { return k.Open("solacc", "1", one) },
		"changed":               func() ([]byte, error) { return k.Open("sol", "acc1", changed) },
		"cut short":             func() ([]byte, error) { return k.Open("sol", "acc1", Sealed{one.KeyID, one.Sealed[:5]}) },
		"empty":                 func() ([]byte, error) { return k.Open("sol", "acc1", Sealed{KeyID: one.KeyID}) },
	} {
		if got, err := open(); !errors.Is(err, ErrTampered) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// After an operator puts a new key before the old one, old secrets still open. When all are
// sealed with the new key, the operator can remove the old one.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	before := ring(t, testKey("a"))
	old, _ := before.Seal("sol", "acc1", []byte(plain))
	both := ring(t, testKey("b"), " "+testKey("a"))
	if got, err := both.Open("sol", "acc1", old); err != nil || string(got) != plain {
		t.Errorf("%q, %v", got, err)
	}
	if both.Seals(old.KeyID) || !both.Knows(old.KeyID) {
		t.Error("the old key must open and not seal")
	}
	anew, _ := both.Seal("sol", "acc1", []byte(plain))
	after := ring(t, testKey("b"))
	if got, err := after.Open("sol", "acc1", anew); err != nil || string(got) != plain || !after.Seals(anew.KeyID) {
		t.Errorf("%q, %v", got, err)
	}
	_, err := after.Open("sol", "acc1", old)
	if unknown := new(UnknownKeyError); !errors.As(err, &unknown) || !strings.Contains(err.Error(), old.KeyID) ||
		!strings.Contains(err.Error(), "PLUGCAST_SECRET_KEY") {
		t.Errorf("%v", err)
	}
	if _, err := (Keyring{}).Seal("sol", "acc1", []byte(plain)); !errors.Is(err, ErrNoKey) {
		t.Errorf("%v", err)
	}
}

func TestParseKeyring(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"hunter2!":                           "key 1 is not base64",
		testKey("a") + ",hunter2!":           "key 2 is not base64",
		testKey("a") + ",":                   "key 2 has 0 bytes",
		"aHVudGVyMg==":                       "key 1 has 7 bytes",
		testKey("a") + "," + testKey("a"):    "key 2 appears twice",
		testKey("a") + ";" + testKey("b"):    "key 1 is not base64",
		strings.TrimRight(testKey("a"), "="): "key 1 is not base64",
	} {
		_, err := ParseKeyring(text)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), testKey("a")) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	if k, err := ParseKeyring(" "); err != nil || !k.Empty() {
		t.Errorf("no keys: %v", err)
	}
}

func TestDialInKeys(t *testing.T) {
	t.Parallel()
	one, two := NewKey(), NewKey()
	if len(one.Reveal()) != 43 || one.Reveal() == two.Reveal() || url.PathEscape(one.Reveal()) != one.Reveal() {
		t.Errorf("%q %q", one.Reveal(), two.Reveal())
	}
	if hash := Hash(one); !Match(hash, one.Reveal()) || Match(hash, two.Reveal()) || Match(hash, "") || Match(hash[:31], one.Reveal()) {
		t.Error("the wrong key matches, or the right one does not")
	}
	if Match(nil, "") || Match([]byte{}, "") {
		t.Error("no hash matches something")
	}
}

// No way of printing, logging or marshalling shows a secret.
func TestNothingPrintsASecret(t *testing.T) {
	t.Parallel()
	key := testKey("a")
	k := ring(t, key)
	secret := Conceal(plain)
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		for _, v := range []any{
			k, &k, secret, &secret, []Secret{secret}, map[string]Secret{"k": secret}, struct{ S Secret }{secret}, struct{ K *Keyring }{&k},
			struct{ s Secret }{secret}, struct{ k Keyring }{k}, Secret{}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	out.WriteString(secret.String() + secret.GoString() + k.String())
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("m", "secret", secret, "ring", k, "pointer", &k, "in", struct{ S Secret }{secret})
	}
	text, err := json.Marshal(map[string]any{"s": secret, "k": k, "p": &secret})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	for _, hidden := range []string{plain, plain[3:], fmt.Sprintf("%x", plain), fmt.Sprintf("%X", plain), key, "aaaa", "97 97 97"} {
		if strings.Contains(out.String(), hidden) {
			t.Errorf("%q comes out:\n%s", hidden, out.String())
		}
	}
	if !strings.Contains(out.String(), concealed) {
		t.Errorf("the output lacks the placeholder of a secret:\n%s", out.String())
	}
}

// token returns an unsigned JWT with the claims.
func token(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte("signature"))
}

func TestParseAuthCode(t *testing.T) {
	t.Parallel()
	code := func(apiURL string) string {
		return token(fmt.Sprintf(`{"sub":"shelly-diy","user_id":"6550","user_api_url":%q}`, apiURL))
	}
	hosts := Hosts{"127.0.0.1:4000", "Localhost:4001"}
	for _, good := range []string{
		"https://shelly-103-eu.shelly.cloud", "https://shelly-103-eu.shelly.cloud/", "https://SHELLY-1-EU.shelly.cloud:443",
		"http://127.0.0.1:4000", "https://127.0.0.1:4000", "http://localhost:4001",
	} {
		got, err := ParseAuthCode(code(good), hosts)
		if err != nil || got.ClientID != "shelly-diy" || got.UserID != "6550" || got.APIURL == nil {
			t.Errorf("%s: %+v, %v", good, got, err)
		}
	}
	bad := map[string]string{
		"empty": "", "no JWT": "hunter2", "two parts": "aHVudGVyMg.aHVudGVyMg", "garbage in three parts": "hunter2.hunter2.hunter2",
		"no URL": token(`{"sub":"shelly-diy"}`), "an access token": token(`{"sub":"pwd","user_api_url":"https://a.shelly.cloud"}`),
		"a claim in another case": token(`{"sub":"shelly-diy","User_API_URL":"https://a.shelly.cloud"}`),
		"a claim twice":           token(`{"sub":"shelly-diy","user_api_url":"https://evil.example","user_api_url":"https://a.shelly.cloud"}`),
		"claims of another type":  token(`{"sub":7}`), "too long": code("https://a.shelly.cloud") + strings.Repeat("a", maxAuthCode),
	}
	for _, apiURL := range []string{
		"http://shelly-103-eu.shelly.cloud", "https://shelly.cloud", "https://.shelly.cloud", "https://shelly.cloud.evil.example",
		"https://evilshelly.cloud", "https://a.shelly.cloud@evil.example", "https://evil.example/a.shelly.cloud",
		"https://evil.example#a.shelly.cloud", "https://evil.example?.shelly.cloud", "https://a.shelly.cloud:8443", "https://u:p@a.shelly.cloud",
		"https://127.0.0.1", "http://127.0.0.1:4001", "https://a.shelly.cloud/x", "ftp://127.0.0.1:4000", "https:a.shelly.cloud",
		"//a.shelly.cloud", "https://evil.example%2f.shelly.cloud", "https://evil.example\\.shelly.cloud", "https://[::1].shelly.cloud",
	} {
		bad[apiURL] = code(apiURL)
	}
	for name, text := range bad {
		_, err := ParseAuthCode(text, hosts)
		if !domain.HasCode(err, domain.CodeInvalidCommand) {
			t.Errorf("%s: %v", name, err)
		} else if text != "" && strings.Contains(err.Error(), text) ||
			strings.Contains(err.Error(), "evil") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the code: %v", name, err)
		}
	}
}
