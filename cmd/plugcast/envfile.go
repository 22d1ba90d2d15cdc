package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// envFile is DATA/env: what a second process needs to know of a development
// platform, as lines that a shell can source. It holds secrets, so only its
// owner may read it.
type envFile map[string]string

// readEnvFile returns an empty envFile when there is none yet.
func readEnvFile(path string) (envFile, error) {
	raw, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return envFile{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read environment: %w", err)
	}
	env := envFile{}
	for lines := bufio.NewScanner(strings.NewReader(string(raw))); lines.Scan(); {
		line, isExport := strings.CutPrefix(lines.Text(), "export ")
		name, value, isPair := strings.Cut(line, "=")
		if isExport && isPair {
			env[name] = strings.Trim(value, "'")
		}
	}
	return env, nil
}

// write replaces the file whole, so that a reader never sees half of it. Values
// are URLs, base64 and hex: none of them has a quote in it.
func (e envFile) write(path string) error {
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
