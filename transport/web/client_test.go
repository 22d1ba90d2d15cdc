package web

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/transport/testpeer/nodejs"
)

// The client connects, resumes and gives up as its own tests say.
func TestClient(t *testing.T) {
	t.Parallel()
	client := nodejs.Folder(t, "client")
	files, err := filepath.Glob(filepath.Join(client, "test", "*.test.mjs"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	if out, err := nodejs.Command(t, client, append([]string{"--test"}, files...)...).Output(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// maxGzipped is the maximum size of the published client without React: the entry with
// all its imports, compressed.
const maxGzipped = 8 << 10 // bytes

// The npm package has correct types in strict mode and only the built files, and its
// entry is small. Other programs can install it, import it under Node, render it on a
// server and check their types against it.
func TestPublishedPackage(t *testing.T) {
	t.Parallel()
	client := nodejs.Folder(t, "client")
	react18 := filepath.Join(client, "test", "react18")
	nodejs.Install(t, client)
	nodejs.Install(t, react18)
	tarball := pack(t, nodejs.Copy(t, client))
	for react, modules := range map[string]string{
		"19.": filepath.Join(client, "node_modules"), "18.": filepath.Join(react18, "node_modules"),
	} {
		t.Run("React "+react, func(t *testing.T) {
			t.Parallel()
			app := consumer(t, client, tarball, modules)
			runIn(t, app, "node", "vanilla.mjs")
			if version := runIn(t, app, "node", "ssr.mjs"); !strings.HasPrefix(version, react) {
				t.Errorf("rendered with React %s", version)
			}
			tsc := filepath.Join(client, "node_modules", ".bin", "tsc")
			for module, resolution := range map[string]string{"esnext": "bundler", "node16": "node16"} {
				runIn(t, app, tsc, "--noEmit", "--strict", "--jsx", "react-jsx", "--target", "es2022", "--types", "react",
					"--module", module, "--moduleResolution", resolution, "consumer.tsx")
			}
		})
	}
}

// pack builds and packs the client, checks the package, and returns its path.
func pack(t *testing.T, client string) string {
	t.Helper()
	to := t.TempDir()
	runIn(t, client, "npm", "run", "build") // .npmrc disables npm's automatic scripts
	out := runIn(t, client, "npm", "pack", "--json", "--pack-destination", to, "--loglevel", "error", "--foreground-scripts=false")
	type packedFile struct{ Path string }
	var packed []struct {
		Filename string
		Files    []packedFile
	}
	if err := json.Unmarshal([]byte(out), &packed); err != nil || len(packed) != 1 {
		t.Fatalf("npm pack: %v in %s", err, out)
	}
	if !slices.ContainsFunc(packed[0].Files, func(f packedFile) bool { return f.Path == "LICENSE" }) {
		t.Error("the license would not be published")
	}
	var sources []string
	for _, f := range packed[0].Files {
		ext := regexp.MustCompile(`^dist/(react/)?[a-z]+(\.js|\.d\.ts)$`).FindStringSubmatch(f.Path)
		switch {
		case f.Path == "package.json" || f.Path == "README.md" || f.Path == "LICENSE":
		case ext == nil:
			t.Errorf("%s would be published", f.Path)
		case ext[1] == "" && ext[2] == ".js":
			sources = append(sources, f.Path)
		}
	}
	if len(sources) < 5 {
		t.Fatalf("only %v would be published", sources)
	}
	slices.Sort(sources)
	var size bytes.Buffer
	zip, _ := gzip.NewWriterLevel(&size, gzip.BestCompression)
	for _, name := range sources { // all sources, although the entry does not import all
		body, err := os.ReadFile(filepath.Join(client, name))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = zip.Write(body)
	}
	_ = zip.Close()
	t.Logf("the client is %d bytes gzipped", size.Len())
	if size.Len() >= maxGzipped {
		t.Errorf("the client is %d bytes gzipped, the maximum is %d", size.Len(), maxGzipped)
	}
	react, err := os.ReadFile(filepath.Join(client, "dist", "react", "index.js"))
	if err != nil || !bytes.HasPrefix(react, []byte(`"use client";`)) {
		t.Errorf("the React part does not begin as Next.js requires: %.40s, %v", react, err)
	}
	return filepath.Join(to, packed[0].Filename)
}

// consumer makes a project with the packed client, and with React from modules.
func consumer(t *testing.T, client, tarball, modules string) string {
	t.Helper()
	app := t.TempDir()
	if err := os.CopyFS(app, os.DirFS(filepath.Join(client, "test", "consumer"))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(app, "package.json"), []byte(`{"type":"module"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	runIn(t, app, "npm", "install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", tarball)
	if err := os.Symlink(filepath.Join(client, "node_modules", "@types"), filepath.Join(app, "node_modules", "@types")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"react", "react-dom"} {
		if err := os.Symlink(filepath.Join(modules, name), filepath.Join(app, "node_modules", name)); err != nil {
			t.Fatal(err)
		}
	}
	return app
}

// runIn runs a program in a folder and returns its output.
func runIn(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}
