package dev

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

func TestEnvFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "env")
	own := strings.Repeat("secret of the SaaS ", 2)
	written := Env{RedisURL: "redis://h", JWTSecret: own}
	var log bytes.Buffer
	written.makeSecrets(slog.New(slog.NewTextHandler(&log, nil)))
	if written[JWTSecret] != own || written[SecretKey] == "" || log.Len() > 0 {
		t.Errorf("secrets are %v, said %s", written, log.String())
	}
	if err := written.write(path); err != nil {
		t.Fatal(err)
	}
	read, err := readEnvFile(path)
	if err != nil || fmt.Sprint(read) != fmt.Sprint(written) {
		t.Errorf("read %v (%v), wrote %v", read, err, written)
	}
	read[SecretKey] = "garbled"
	read.makeSecrets(slog.New(slog.NewTextHandler(&log, nil)))
	if read[SecretKey] == "garbled" || !strings.Contains(log.String(), SecretKey) || strings.Contains(log.String(), "=garbled") {
		t.Errorf("a garbled secret must be replaced, with a word about it: %s", log.String())
	}
}
