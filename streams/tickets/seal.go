package tickets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// sealKeySize is the size of a [sealer]'s key, in bytes.
const sealKeySize = 32

// sealer encrypts and authenticates the content of tickets with AES-256-GCM. It derives the
// nonce from the content (a synthetic nonce, as in RFC 5297), so the same content always gives
// the same ticket, and two different contents never share a nonce.
type sealer struct {
	aead     cipher.AEAD
	nonceKey []byte
}

// newSealer returns the sealer for a key of sealKeySize bytes.
func newSealer(key []byte) (sealer, error) {
	if len(key) != sealKeySize {
		return sealer{}, fmt.Errorf("the key of stream tickets has %d bytes instead of %d", len(key), sealKeySize)
	}
	block, err := aes.NewCipher(digest(key, []byte("encryption")))
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCM(block)
	return sealer{aead, digest(key, []byte("nonce"))}, err
}

func digest(key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write(text) // never fails
	return mac.Sum(nil)
}

func (s sealer) seal(content []byte) string {
	nonce := digest(s.nonceKey, content)[:s.aead.NonceSize()]
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nonce, nonce, content, nil))
}

// open returns the content of a ticket. ok is false for text that was not sealed with the same
// key.
func (s sealer) open(ticket string) (content []byte, ok bool) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	n := s.aead.NonceSize()
	if err != nil || len(sealed) < n {
		return nil, false
	}
	content, err = s.aead.Open(nil, sealed[:n], sealed[n:], nil)
	return content, err == nil
}
