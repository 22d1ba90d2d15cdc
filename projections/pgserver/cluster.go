package pgserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/plugcast/plugcast/streams/childproc"
)

// versionFile, in a data directory, contains the major version of Postgres that created it.
const versionFile = "PG_VERSION"

// cluster is a data directory that is ready to be served.
type cluster struct {
	programs programs
	password string
}

// prepare creates the cluster at a location, or checks the existing one. The caller holds the
// lock of the location, and no server of it runs.
func prepare(ctx context.Context, cfg Config, at location) (cluster, error) {
	if err := removeLeftovers(at); err != nil {
		return cluster{}, err
	}
	if err := setAside(cfg, at); err != nil {
		return cluster{}, err
	}
	major, err := majorVersion(at.data)
	if err != nil {
		return cluster{}, err
	}
	found, err := findPrograms(ctx, debianRoot, major)
	if err != nil {
		if major != 0 {
			err = fmt.Errorf("%w: install that version, or remove %s to start with an empty database", err, at.dir)
		}
		return cluster{}, err
	}
	password, err := readPassword(at, major == 0)
	if err != nil {
		return cluster{}, err
	}
	switch {
	case major == 0:
		err = create(ctx, cfg, at, found, password)
	case at.rooted:
		err = errors.Join(at.chown(at.data), freePIDFile(at.data))
	default:
		err = freePIDFile(at.data)
	}
	if err == nil && at.moved() {
		err = link(cfg, at)
	}
	return cluster{programs: found, password: password}, err
}

// majorVersion returns the major version of Postgres that created the data, 0 if there are
// none.
func majorVersion(data string) (int, error) {
	text, err := os.ReadFile(filepath.Join(data, versionFile))
	if err == nil {
		major, _, _ := strings.Cut(strings.TrimSpace(string(text)), ".")
		return strconv.Atoi(major)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	entries, err := os.ReadDir(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if len(entries) > 0 {
		return 0, fmt.Errorf("%s contains files that are not a database", data)
	}
	return 0, nil
}

// create creates a new cluster in a temporary directory and moves it to its location once it is
// complete, so that a data directory is never half-made.
func create(ctx context.Context, cfg Config, at location, use programs, password string) (err error) {
	if at.moved() {
		root := filepath.Dir(at.data)
		if err := os.MkdirAll(root, 0o755); err != nil {
			return err
		}
		if !reachable(root, at.credential) { // created under a strict umask
			if err := os.Chmod(root, 0o711); err != nil {
				return err
			}
		}
	}
	work, err := os.MkdirTemp(filepath.Dir(at.data), filepath.Base(at.data)+workSuffix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	data, passwordFile := filepath.Join(work, "data"), filepath.Join(work, "password")
	if err := os.WriteFile(passwordFile, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	if err := at.chown(work); err != nil {
		return err
	}
	args := []string{
		"-D", data, "--username", superuser, "--pwfile", passwordFile, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions",
	}
	if cfg.Fast {
		args = append(args, "--no-sync")
	}
	out, err := childproc.Run(ctx, childproc.Command{
		Path: use.initdb, Args: args, Env: environment, Dir: work, Credential: at.credential,
	})
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, strings.Join(strings.Fields(string(out)), " "))
	}
	// An empty directory may be in the way.
	if err := os.Remove(at.data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(data, at.data)
}

// workSuffix marks the directories in which initdb works.
const workSuffix = ".initdb-"

// removeLeftovers removes the directories of an initdb that was killed with its parent.
func removeLeftovers(at location) error {
	works, err := filepath.Glob(escape(at.data) + workSuffix + "*")
	if err != nil {
		return err
	}
	for _, work := range works {
		if err := os.RemoveAll(work); err != nil {
			return err
		}
	}
	return nil
}

// escape quotes a path for use in a glob pattern.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// setAside renames data at a moved location if their owner has removed the requested directory
// with its link and password, which means a fresh start. It keeps one such set of data, because
// it may still be wanted.
func setAside(cfg Config, at location) error {
	if !at.moved() || exists(at.dir) || exists(passwordFile(at)) || !exists(at.data) {
		return nil
	}
	aside := at.data + ".removed"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	cfg.Logger.Warn("set aside the data of a directory that was removed", "dir", at.dir, "data", aside)
	return os.Rename(at.data, aside)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// link creates a symbolic link at the requested directory to the data.
func link(cfg Config, at location) error {
	if target, err := os.Readlink(at.dir); err == nil && target == at.data {
		return nil
	}
	// An empty directory or a broken link may be in the way.
	if err := os.Remove(at.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(at.data, at.dir); err != nil {
		return err
	}
	cfg.Logger.Info("the data are in another directory, because the user that runs Postgres cannot access the requested one",
		"requested", at.dir, "data", at.data, "uid", at.credential.Uid)
	return nil
}

func passwordFile(at location) string { return at.dir + ".password" }

// readPassword reads the password of the cluster, or generates one for a new cluster.
func readPassword(at location, fresh bool) (string, error) {
	path := passwordFile(at)
	text, err := os.ReadFile(path)
	password := strings.TrimSpace(string(text))
	switch {
	case err == nil && password != "":
		return password, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	case !fresh:
		return "", fmt.Errorf(
			"the password of the data in %s is missing: put %s back, or remove %s to start with an empty database", at.dir, path, at.dir)
	}
	password = rand.Text()
	return password, writeSynced(path, password+"\n")
}

// writeSynced writes a file completely or not at all, also if the machine crashes: without its
// password a cluster is lost.
func writeSynced(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// pidFileLines returns the lines of the file in which a Postgres describes itself, none if
// there is no such file.
func pidFileLines(data string) []string {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return nil
	}
	return strings.Split(string(text), "\n")
}

// freePIDFile removes the pid file of a Postgres that died. Postgres does so itself unless
// another process has that id by now; then it refuses to start. Our own servers were ended
// before; a Postgres that another program runs on these data is left alone.
func freePIDFile(data string) error {
	lines := pidFileLines(data)
	if len(lines) == 0 {
		return nil
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(lines[0])); err == nil && mayServe(pid, data) {
		return fmt.Errorf("%s is in use by the Postgres with process id %d, which plugcast did not start", data, pid)
	}
	return os.Remove(filepath.Join(data, "postmaster.pid"))
}

// mayServe reports whether a process is a Postgres that may work on data. Some containers hide
// the working directory of a process; then it may be data.
func mayServe(pid int, data string) bool {
	argv, err := childproc.CommandLine(pid)
	if err != nil || len(argv) == 0 || filepath.Base(argv[0]) != "postgres" {
		return false
	}
	cwd, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	return err != nil || cwd == data
}
