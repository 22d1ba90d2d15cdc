package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
)

// NewKey makes a key for devices to dial in with: 32 random bytes in base64url,
// 43 characters that a URL takes as they are.
func NewKey() Secret {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	return Conceal(base64.RawURLEncoding.EncodeToString(raw))
}

// Hash is what is kept of a dial-in key: its SHA-256. A slow hash would add
// nothing, because nobody guesses 256 random bits.
func Hash(key Secret) []byte {
	sum := sha256.Sum256([]byte(key.Reveal()))
	return sum[:]
}

// Match reports whether a key that somebody presents has the hash. How long it
// takes says nothing of the hash. No hash matches nothing.
func Match(hash []byte, presented string) bool {
	sum := sha256.Sum256([]byte(presented))
	return subtle.ConstantTimeCompare(hash, sum[:]) == 1
}
