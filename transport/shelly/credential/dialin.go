package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
)

// NewKey returns a new key with which devices dial in: 32 random bytes in base64url,
// which are 43 characters that need no escaping in a URL.
func NewKey() Secret {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	return Conceal(base64.RawURLEncoding.EncodeToString(raw))
}

// Hash returns the SHA-256 of a dial-in key, for storage. A slow hash would add nothing,
// because nobody guesses 256 random bits.
func Hash(key Secret) []byte {
	sum := sha256.Sum256([]byte(key.Reveal()))
	return sum[:]
}

// Match reports whether the presented key has the hash, in constant time. An empty hash
// matches no key.
func Match(hash []byte, presented string) bool {
	sum := sha256.Sum256([]byte(presented))
	return subtle.ConstantTimeCompare(hash, sum[:]) == 1
}
