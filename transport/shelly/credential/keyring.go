// Package credential keeps the secrets of Shelly connections unreadable: what a
// cloud account is reached with is sealed, and the key that devices dial in with
// is known by its hash. It does no I/O, and nothing of it prints a secret.
package credential

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/plugcast/plugcast/domain"
)

// KeySize is the bytes of a key of a [Keyring], before base64.
const KeySize = 32

// Errors of a [Keyring]. Their text is for the operator.
var (
	// ErrTampered says that what is to be opened was sealed for another
	// connection, or was changed.
	ErrTampered = errors.New("credential: open: it was sealed for another connection, or was changed since")
	// ErrNoKey says that there is no key to seal with.
	ErrNoKey = errors.New("credential: there is no secret key: set PLUGCAST_SECRET_KEY")
)

// UnknownKeyError says that a secret was sealed with a key that is not on the
// ring.
type UnknownKeyError struct{ KeyID string }

// Error implements error.
func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("credential: open: it was sealed with the key %.16q, which is not in PLUGCAST_SECRET_KEY: "+
		"add that key behind the present one, or give the connection its credential again", e.KeyID)
}

// Sealed is a secret that only a [Keyring] with the key of this id opens.
type Sealed struct {
	KeyID  string // the first 8 hex digits of the key's SHA-256
	Sealed []byte // nonce, ciphertext and tag
}

// Keyring seals secrets with its first key, and opens them with any of its keys,
// so that a new key can be put before an old one. The zero Keyring has no keys.
// It is safe for concurrent use.
type Keyring struct {
	hidden
	keys []ringKey
}

type ringKey struct {
	id   string
	aead cipher.AEAD
}

// ParseKeyring reads keys of [KeySize] bytes in base64, separated by commas. The
// first seals. No text is no keys. Errors say which key is wrong, and not what it
// is.
func ParseKeyring(text string) (Keyring, error) {
	var ring Keyring
	if strings.TrimSpace(text) == "" {
		return ring, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		n := len(ring.keys) + 1
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(part))
		if err != nil {
			return Keyring{}, fmt.Errorf("credential: secret key %d is not base64", n) // err would say what is there
		}
		if len(raw) != KeySize {
			return Keyring{}, fmt.Errorf("credential: secret key %d has %d bytes; it must have %d, as openssl rand -base64 %d makes them",
				n, len(raw), KeySize, KeySize)
		}
		key, err := newRingKey(raw)
		if err != nil {
			return Keyring{}, err
		}
		if _, known := ring.find(key.id); known {
			return Keyring{}, fmt.Errorf("credential: secret key %d appears twice", n)
		}
		ring.keys = append(ring.keys, key)
	}
	return ring, nil
}

func newRingKey(raw []byte) (ringKey, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return ringKey{}, fmt.Errorf("credential: secret key: %w", err)
	}
	// The nonce is random, and put before the ciphertext: 96 bits last for 2^32
	// secrets, and there is one per connection and token.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return ringKey{}, fmt.Errorf("credential: secret key: %w", err)
	}
	sum := sha256.Sum256(raw)
	return ringKey{id: hex.EncodeToString(sum[:4]), aead: aead}, nil
}

// Empty reports whether there is no key.
func (k Keyring) Empty() bool { return len(k.keys) == 0 }

// Knows reports whether the ring has the key of this id.
func (k Keyring) Knows(keyID string) bool {
	_, known := k.find(keyID)
	return known
}

// Seals reports whether the key of this id is the one that seals: a secret under
// another is to be sealed anew when it is next written.
func (k Keyring) Seals(keyID string) bool { return !k.Empty() && k.keys[0].id == keyID }

// Seal encrypts a secret of a connection. It can be opened only as a secret of
// that connection. It fails with [ErrNoKey].
func (k Keyring) Seal(system domain.SystemID, connection domain.ConnectionID, secret []byte) (Sealed, error) {
	if k.Empty() {
		return Sealed{}, ErrNoKey
	}
	key := k.keys[0]
	return Sealed{KeyID: key.id, Sealed: key.aead.Seal(nil, nil, secret, owner(system, connection))}, nil
}

// Open decrypts a secret of a connection. It fails with an [*UnknownKeyError] or
// [ErrTampered].
func (k Keyring) Open(system domain.SystemID, connection domain.ConnectionID, s Sealed) ([]byte, error) {
	key, known := k.find(s.KeyID)
	if !known {
		return nil, &UnknownKeyError{KeyID: s.KeyID}
	}
	secret, err := key.aead.Open(nil, nil, s.Sealed, owner(system, connection))
	if err != nil {
		return nil, ErrTampered // err says no more
	}
	return secret, nil
}

func (k Keyring) find(id string) (ringKey, bool) {
	for _, key := range k.keys {
		if key.id == id {
			return key, true
		}
	}
	return ringKey{}, false
}

// owner is the additional data of a sealed secret: a row that is copied to
// another connection does not open there. No id has a NUL in it.
func owner(system domain.SystemID, connection domain.ConnectionID) []byte {
	return []byte("plugcast connection\x00" + string(system) + "\x00" + string(connection))
}
