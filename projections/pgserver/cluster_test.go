package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/plugcast/plugcast/streams/childproc"
	"github.com/plugcast/plugcast/streams/childproc/scratch"
	"github.com/plugcast/plugcast/transport/testpeer"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantError starts a server, which must fail with an error that contains all of these words.
func wantError(t *testing.T, cfg Config, words ...string) {
	t.Helper()
	server, err := Start(t.Context(), cfg)
	if err == nil {
		stop(t, server)
		t.Fatal("it started")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not contain %q", err, word)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
}

func TestNoDirectoryIsGiven(t *testing.T) {
	t.Parallel()
	wantError(t, Config{}, "data directory")
}

func TestDataOfAnotherVersion(t *testing.T) {
	t.Parallel()
	found, err := findPrograms(t.Context(), debianRoot, 0)
	if err != nil {
		t.Fatal(err)
	}
	installed, err := found.major(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg := fast(t)
	write(t, filepath.Join(cfg.Dir, versionFile), "7\n")
	wantError(t, cfg, "created by Postgres 7,", "Postgres "+strconv.Itoa(installed), "remove "+cfg.Dir)
}

func TestADirectoryWithOtherFilesIsNotTouched(t *testing.T) {
	t.Parallel()
	cfg := fast(t)
	write(t, filepath.Join(cfg.Dir, "thesis.txt"), "dear")
	wantError(t, cfg, cfg.Dir, "not a database")
	if text, err := os.ReadFile(filepath.Join(cfg.Dir, "thesis.txt")); err != nil || string(text) != "dear" {
		t.Errorf("the file has %q, error %v", text, err)
	}
}

func TestAnEmptyDirectoryIsUsed(t *testing.T) {
	t.Parallel()
	cfg := fast(t)
	if err := os.Mkdir(cfg.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	startServer(t, cfg)
}

func TestThePasswordIsMissing(t *testing.T) {
	t.Parallel()
	server := startServer(t, fast(t))
	stop(t, server)
	file := server.Config().Dir + ".password"
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantError(t, server.Config(), file, "missing")
	write(t, file, "guess\n")
	wantError(t, server.Config(), "password")
	if _, err := childproc.Acquire(t.Context(), server.Config().Dir+".lock"); err != nil {
		t.Errorf("the failure left a server: %v", err)
	}
}

// A killed parent leaves the directory of an initdb that was working.
func TestAHalfMadeClusterIsMadeAnew(t *testing.T) {
	t.Parallel()
	cfg := fast(t)
	half := cfg.Dir + workSuffix + "123"
	write(t, filepath.Join(half, "data", versionFile), "15\n")
	write(t, cfg.Dir+".password", "from before\n")
	server := startServer(t, cfg)
	if exists(half) {
		t.Error("the half-made cluster is still there")
	}
	if server.password != "from before" {
		t.Error("the password was replaced")
	}
}

func TestAStartThatIsCalledOffLeavesNothing(t *testing.T) {
	t.Parallel()
	cfg := fast(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error)
	go func() {
		server, err := Start(ctx, cfg)
		if err == nil {
			_ = server.Kill()
		}
		failed <- err
	}()
	works := func() []string {
		found, err := filepath.Glob(cfg.Dir + workSuffix + "*")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	testpeer.Eventually(t, "initdb", func() bool { return len(works()) > 0 })
	cancel()
	if err := <-failed; err == nil {
		t.Error("it started all the same")
	}
	if left := works(); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	startServer(t, cfg)
}

// Data that root copied belong to root, for which Postgres refuses to work.
func TestRootsDataAreGivenAway(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can have such data")
	}
	server := startServer(t, fast(t))
	execute(t, server.URL(), keep)
	stop(t, server)
	err := filepath.WalkDir(server.Dir(), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, 0, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	again := startServer(t, server.Config())
	if got := query(t, again.URL(), kept); got != "1" {
		t.Errorf("%s rows, want 1", got)
	}
}

// Root may request a directory that no other user can access.
func TestAPlaceThatOnlyRootGetsTo(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root has such places")
	}
	private := filepath.Join(scratch.For(t), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	var log testpeer.Buffer
	cfg := Config{Dir: filepath.Join(private, "data"), Fast: true, Logger: log.Logger()}
	data := filepath.Join(systemRoot, digest(cfg.Dir))
	t.Cleanup(func() {
		for _, path := range []string{data, data + ".removed"} {
			if err := os.RemoveAll(path); err != nil {
				t.Error(err)
			}
		}
		_ = os.Remove(systemRoot) // fails if it contains other data
	})

	server := startServer(t, cfg)
	execute(t, server.URL(), keep)
	if target, err := os.Readlink(cfg.Dir); err != nil || target != data || server.Dir() != data {
		t.Errorf("link to %s, error %v, data in %s; want %s", target, err, server.Dir(), data)
	}
	stop(t, server)

	server = startServer(t, cfg)
	execute(t, server.URL(), keep)
	if n := strings.Count(log.String(), "the data are in another directory"); n != 1 {
		t.Errorf("logged %d times where the data are, want once", n)
	}
	stop(t, server)

	if err := os.Remove(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	server = startServer(t, cfg)
	if got := query(t, server.URL(), kept); got != "2" {
		t.Errorf("with the link gone but not the password: %s rows, want 2", got)
	}
	stop(t, server)

	if err := errors.Join(os.RemoveAll(private), os.Mkdir(private, 0o700)); err != nil {
		t.Fatal(err)
	}
	server = startServer(t, cfg)
	if got := query(t, server.URL(), "SELECT to_regclass('kept') IS NULL || ''"); got != "true" {
		t.Error("the data are back though their place was removed")
	}
	if !exists(filepath.Join(data+".removed", versionFile)) {
		t.Error("the old data are gone, want them set aside")
	}
}

func TestReachable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of other users")
	}
	const uid, gid = 4321, 8765
	user := &syscall.Credential{Uid: uid, Gid: gid}
	for _, c := range []struct {
		mode       os.FileMode
		owner, grp int
		want       bool
	}{
		{0o711, 0, 0, true},
		{0o770, 0, 0, false},
		{0o710, 0, gid, true},
		{0o701, 0, gid, false}, // the group's bits apply to its members
		{0o100, uid, 0, true},
		{0o077, uid, gid, false},
	} {
		dir := filepath.Join(scratch.For(t), "dir")
		if err := os.MkdirAll(filepath.Join(dir, "below"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, c.owner, c.grp); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, c.mode); err != nil {
			t.Fatal(err)
		}
		if got := reachable(filepath.Join(dir, "below"), user); got != c.want {
			t.Errorf("through mode %o of user %d and group %d: %v, want %v", c.mode, c.owner, c.grp, got, c.want)
		}
	}
}

// pretend creates programs that only print their version.
func pretend(t *testing.T, dir string, version int) {
	t.Helper()
	for _, name := range []string{"postgres", "initdb"} {
		path := filepath.Join(dir, name)
		write(t, path, fmt.Sprintf("#!/bin/sh\necho '%s (PostgreSQL) %d.3 (Debian %d.3-1)'\n", name, version, version))
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFindPrograms(t *testing.T) {
	root, path := t.TempDir(), t.TempDir()
	t.Setenv("PATH", path)
	if _, err := findPrograms(t.Context(), root, 0); err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") {
		t.Errorf("nothing installed: error %v, want to hear how to install it", err)
	}

	for _, version := range []int{9, 14, 15} {
		pretend(t, filepath.Join(root, strconv.Itoa(version), "bin"), version)
	}
	write(t, filepath.Join(root, "16", "bin", "pg_config"), "of a package without the server")
	expect := func(major int, want string) {
		t.Helper()
		found, err := findPrograms(t.Context(), root, major)
		if err != nil {
			t.Fatal(err)
		}
		if found.postgres != filepath.Join(want, "postgres") || found.initdb != filepath.Join(want, "initdb") {
			t.Errorf("for version %d found %v, want those in %s", major, found, want)
		}
	}
	expect(0, filepath.Join(root, "15", "bin"))
	expect(14, filepath.Join(root, "14", "bin"))
	expect(9, filepath.Join(root, "9", "bin"))
	if _, err := findPrograms(t.Context(), root, 13); err == nil || !strings.Contains(err.Error(), "15 and 14 and 9") {
		t.Errorf("error %v, want the versions that are installed", err)
	}

	pretend(t, path, 13)
	pretend(t, filepath.Join(root, "12", "bin"), 12)
	write(t, filepath.Join(root, "12", "bin", "postgres"), "#!/bin/sh\nexit 1\n") // broken
	expect(0, path)
	expect(13, path)
	expect(15, filepath.Join(root, "15", "bin"))
}
