// Package credential protects the secrets of Shelly connections: it seals the tokens of
// cloud accounts, and hashes the keys with which devices dial in. It does no I/O, and
// none of its types prints a secret.
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

// KeySize is the size of a key of a [Keyring] in bytes, before base64.
const KeySize = 32

// Errors of a [Keyring], with texts for operators.
var (
	// ErrTampered says that a secret was sealed for another connection, or was changed
	// after it was sealed.
	ErrTampered = errors.New("credential: open: it was sealed for another connection, or was changed since")
	// ErrNoKey says that the keyring has no key to seal with.
	ErrNoKey = errors.New("credential: there is no secret key: set PLUGCAST_SECRET_KEY")
)

// UnknownKeyError says that a secret was sealed with a key that the keyring lacks.
type UnknownKeyError struct{ KeyID string }

// Error implements error.
func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("credential: open: it was sealed with the key %.16q, which is not in PLUGCAST_SECRET_KEY: "+
		"add that key behind the present one, or give the connection its credential again", e.KeyID)
}

// Sealed is a secret that only a [Keyring] with the key KeyID can open.
type Sealed struct {
	KeyID  string // the first 8 hex digits of the key's SHA-256
	Sealed []byte // nonce, ciphertext and tag
}

// Keyring seals secrets with its first key and opens them with any of its keys, so that
// operators can put a new key before an old one. The zero Keyring has no keys. It is
// safe for concurrent use.
type Keyring struct {
	hidden
	keys []ringKey
}

type ringKey struct {
	id   string
	aead cipher.AEAD
}

// ParseKeyring parses keys of [KeySize] bytes in base64, separated by commas. The first
// one seals. An empty text has no keys. Errors name the number of the wrong key, and
// nothing of its value.
func ParseKeyring(text string) (Keyring, error) {
	var ring Keyring
	if strings.TrimSpace(text) == "" {
		return ring, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		n := len(ring.keys) + 1
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(part))
		if err != nil {
			return Keyring{}, fmt.Errorf("credential: secret key %d is not base64", n) // err would show a part of it
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
	// A random nonce precedes the ciphertext. 96 bits suffice for 2^32 secrets, and there
	// is one secret per connection and token.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return ringKey{}, fmt.Errorf("credential: secret key: %w", err)
	}
	sum := sha256.Sum256(raw)
	return ringKey{id: hex.EncodeToString(sum[:4]), aead: aead}, nil
}

// Empty reports whether the keyring has no key.
func (k Keyring) Empty() bool { return len(k.keys) == 0 }

// Knows reports whether the keyring has the key keyID.
func (k Keyring) Knows(keyID string) bool {
	_, known := k.find(keyID)
	return known
}

// Seals reports whether the keyring seals with the key keyID. A secret under another key
// is sealed with the current one when it is next written.
func (k Keyring) Seals(keyID string) bool { return !k.Empty() && k.keys[0].id == keyID }

// Seal encrypts a secret of a connection, so that [Keyring.Open] opens it only for that
// connection. It fails with [ErrNoKey].
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
		return nil, ErrTampered // err has no details
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

// owner returns the additional data of a sealed secret: a row that somebody copies to
// another connection does not open there. No id has a NUL in it.
func owner(system domain.SystemID, connection domain.ConnectionID) []byte {
	return []byte("plugcast connection\x00" + string(system) + "\x00" + string(connection))
}
