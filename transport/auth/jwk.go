package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"

	"github.com/plugcast/plugcast/transport/strictjson"
)

// verificationKey is a key of a key set that can verify tokens.
type verificationKey struct {
	id        string // kid, or ""
	algorithm string // the only algorithm that the key may be used with; "" for any of its type
	public    any    // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// maxKeys bounds the keys of a set, because a token without a key id is tried with each.
const maxKeys = 128

// errOtherUse is the error for a valid member that is not meant for verifying tokens.
var errOtherUse = errors.New("it is for another use")

// parseKeySet reads a JWKS. A member that cannot be used does not affect the others
// (RFC 7517, section 5); skipped describes each of them, except those that are merely for
// another use. parseKeySet fails when the text is no key set, and when it skipped members
// and no key is left. An empty list is valid: a provider that revokes all its keys sends it.
func parseKeySet(text []byte) (keys []verificationKey, skipped []string, err error) {
	set, err := strictjson.Members(text)
	if err != nil {
		return nil, nil, fmt.Errorf("the key set %w", err)
	}
	var members []json.RawMessage // some providers write an empty list as null
	if json.Unmarshal(set["keys"], &members) != nil {
		return nil, nil, errors.New(`the key set has no list "keys"`)
	}
	keys = []verificationKey{}
	for i, member := range members {
		key, err := parseKey(member)
		switch {
		case err == nil && len(keys) == maxKeys:
			return keys, append(skipped, fmt.Sprintf("number %d and all after it: the set has more than %d keys", i, maxKeys)), nil
		case err == nil:
			keys = append(keys, key)
		case !errors.Is(err, errOtherUse):
			skipped = append(skipped, fmt.Sprintf("number %d (kid %.80q): %v", i, key.id, err))
		}
	}
	if len(keys) == 0 && len(skipped) > 0 {
		return nil, skipped, errors.New("no member of the key set can be used: " + strings.Join(skipped[:min(len(skipped), 3)], "; "))
	}
	return keys, skipped, nil
}

// minRSA is the least length of an RSA key in bits (RFC 7518, section 3.3).
const minRSA = 2048

// parseKey reads one member of a key set. When it fails, the returned key still has the
// id, if that could be read.
func parseKey(text json.RawMessage) (key verificationKey, err error) {
	members, err := strictjson.Members(text)
	if err != nil {
		return key, err
	}
	// Certificates and their thumbprints are not needed, and the private part of a key
	// must not be read.
	var m jwkset.JWKMarshal
	var operations []any
	for _, field := range []struct {
		name string
		into any
	}{
		{"kid", &m.KID}, {"kty", &m.KTY}, {"use", &m.USE}, {"key_ops", &operations}, {"alg", &m.ALG},
		{"crv", &m.CRV}, {"x", &m.X}, {"y", &m.Y}, {"n", &m.N}, {"e", &m.E},
	} {
		if value, there := members[field.name]; there && json.Unmarshal(value, field.into) != nil {
			err = errors.Join(err, errors.New(field.name+" has the wrong type"))
		}
	}
	key.id, key.algorithm = m.KID, string(m.ALG)
	if err != nil {
		return key, err
	}
	if err := checkUse(&m, operations, members["key_ops"] != nil); err != nil {
		return key, err
	}
	m.USE, m.ALG = "", "" // checked above; the library refuses values that it does not know
	jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return key, err
	}
	if key.public = jwk.Key(); !fits(key.public, key.algorithm) {
		return key, fmt.Errorf("a key of type %s cannot be used with %.32q", m.KTY, key.algorithm)
	}
	if short, isRSA := key.public.(*rsa.PublicKey); isRSA && short.N.BitLen() < minRSA {
		return key, fmt.Errorf("an RSA key of %d bits is too short: it needs at least %d", short.N.BitLen(), minRSA)
	}
	return key, nil
}

// checkUse returns errOtherUse for a member that is not meant for verifying tokens.
func checkUse(m *jwkset.JWKMarshal, operations []any, limited bool) error {
	switch {
	case m.USE != "" && m.USE != jwkset.UseSig, limited && !slices.Contains(operations, any("verify")):
		return errOtherUse
	case m.ALG != "" && !slices.Contains(asymmetric, string(m.ALG)):
		return errOtherUse
	case m.KTY == jwkset.KtyOct, m.KTY == jwkset.KtyOKP && m.CRV == jwkset.CrvX25519:
		return errOtherUse
	}
	return nil
}

// fits reports whether a key is of the type that an algorithm needs. The empty
// algorithm means any.
func fits(public any, algorithm string) bool {
	switch key := public.(type) {
	case *rsa.PublicKey:
		return algorithm == "" || algorithm[0] == 'R' || algorithm[0] == 'P'
	case *ecdsa.PublicKey:
		return algorithm == "" || algorithm == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[key.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return algorithm == "" || algorithm == "EdDSA"
	}
	return false
}
