package nodejs

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The packages are installed once, by whoever comes first, and again when the
// lock file changes. These two files ask for no package, so nothing is fetched.
func TestInstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lock := `{"name":"nothing","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{"":{"name":"nothing","version":"1.0.0"}}}`
	write("package.json", `{"name":"nothing","version":"1.0.0"}`)
	write("package-lock.json", lock)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { Install(t, dir) })
	}
	all.Wait()
	stamp := func() string {
		text, err := os.ReadFile(filepath.Join(dir, "node_modules", ".installed"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := stamp()
	write("package-lock.json", lock+"\n")
	if Install(t, dir); stamp() == first {
		t.Error("a changed lock file was not looked at")
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	out, err := Command(t, t.TempDir(), "-p", "6*7").Output()
	if err != nil || strings.TrimSpace(string(out)) != "42" {
		t.Errorf("node answered %q, %v", out, err)
	}
}
