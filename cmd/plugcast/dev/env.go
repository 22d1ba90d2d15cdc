package dev

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plugcast/plugcast/transport/auth"
)

// Env is DATA/env: what a second process needs to know of a development
// platform, as lines that a shell can source. It holds secrets, so only its
// owner may read it.
type Env map[string]string

// Names in DATA/env.
const (
	RedisURL    = "PLUGCAST_REDIS_URL"
	PostgresURL = "PLUGCAST_POSTGRES_URL"
	JWTSecret   = "PLUGCAST_JWT_SECRET"
	SecretKey   = "PLUGCAST_SECRET_KEY"
)

// envNames are the names of an Env. What else somebody wrote there is not
// kept: it could not be written back as it was.
var envNames = []string{RedisURL, PostgresURL, JWTSecret, SecretKey}

// readEnvFile returns what can be read of the file: nothing when there is none
// yet, or of one that is garbled.
func readEnvFile(path string) (Env, error) {
	raw, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return Env{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read environment: %w", err)
	}
	env := Env{}
	for line := range strings.Lines(string(raw)) {
		line, isExport := strings.CutPrefix(strings.TrimSpace(line), "export ")
		name, value, isPair := strings.Cut(line, "=")
		value = strings.Trim(value, `'"`)
		if isExport && isPair && slices.Contains(envNames, name) && !strings.ContainsAny(value, `'"`) {
			env[name] = value
		}
	}
	return env, nil
}

// makeSecrets makes those that are missing or no secrets, on a first start or
// after somebody garbled the file.
func (e Env) makeSecrets(logger *slog.Logger) {
	for _, name := range []string{JWTSecret, SecretKey} {
		switch raw, err := base64.StdEncoding.DecodeString(e[name]); {
		case name == JWTSecret && len(e[name]) >= auth.MinSecret:
			continue // base64 or not: its owner may have put there that of the SaaS
		case err == nil && len(raw) == secretSize:
			continue
		case e[name] != "":
			logger.Warn("a secret of the data directory is garbled; a new one takes its place", "name", name)
		}
		secret := make([]byte, secretSize)
		_, _ = rand.Read(secret) // never fails
		e[name] = base64.StdEncoding.EncodeToString(secret)
	}
}

// secretSize is the bytes of a secret, before base64.
const secretSize = 32

// write replaces the file whole, so that a reader never sees half of it. Values
// are URLs and base64: none of them has a quote in it.
func (e Env) write(path string) error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(e)) {
		fmt.Fprintf(&text, "export %s='%s'\n", name, e[name])
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "env-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write environment: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.WriteString(text.String())
	if err == nil {
		err = temporary.Sync() // the secrets must outlive the machine's crash
	}
	if closing := temporary.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write environment: %w", err)
	}
	return nil
}
