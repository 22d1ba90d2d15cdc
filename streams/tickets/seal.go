package tickets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// sealKeySize is the size of the key behind a [seal], in bytes.
const sealKeySize = 32

// seal encrypts and authenticates what stands in tickets, with AES-256-GCM. The nonce
// is made from the content (a synthetic one, as in RFC 5297), so that the same content
// is always the same ticket, and two contents never share a nonce.
type seal struct {
	aead  cipher.AEAD
	nonce []byte // the key that nonces are made with
}

// newSeal makes a seal of a key of sealKeySize bytes.
func newSeal(key []byte) (seal, error) {
	if len(key) != sealKeySize {
		return seal{}, fmt.Errorf("the key of stream tickets has %d bytes, not %d", len(key), sealKeySize)
	}
	block, err := aes.NewCipher(digest(key, []byte("encryption")))
	if err != nil {
		return seal{}, err
	}
	aead, err := cipher.NewGCM(block)
	return seal{aead, digest(key, []byte("nonce"))}, err
}

func digest(key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write(text) // never fails
	return mac.Sum(nil)
}

func (s seal) close(content []byte) string {
	nonce := digest(s.nonce, content)[:s.aead.NonceSize()]
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nonce, nonce, content, nil))
}

// open returns what is in a ticket. ok is false for what was not closed with the same
// key.
func (s seal) open(ticket string) (content []byte, ok bool) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	n := s.aead.NonceSize()
	if err != nil || len(sealed) < n {
		return nil, false
	}
	content, err = s.aead.Open(nil, sealed[:n], sealed[n:], nil)
	return content, err == nil
}
