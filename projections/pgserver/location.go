package pgserver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// systemRoot holds the data of clusters whose requested directory is not accessible to the user
// that runs Postgres.
const systemRoot = "/var/lib/plugcast"

// location is the directory of a cluster's data, and their owner.
type location struct {
	// dir is the requested directory, and data the actual one.
	dir, data string
	// credential is the owner of the data; nil is the user of this process.
	credential *syscall.Credential
	// rooted means that the data still belong to root, and must be given to another user.
	rooted bool
}

// moved reports whether the data are in another directory than requested.
func (l location) moved() bool { return l.dir != l.data }

// locate returns the location of the cluster in dir, or the best one for a new cluster. It
// changes nothing.
func locate(dir string) (location, error) {
	_, err := os.Stat(filepath.Join(dir, versionFile))
	switch {
	case err == nil:
		return locateExisting(dir)
	case errors.Is(err, fs.ErrPermission):
		return location{}, fmt.Errorf("the data in %s belong to another user: run as that user or as root", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return location{}, err
	}
	if os.Geteuid() != 0 {
		return location{dir: dir, data: dir}, nil
	}
	credential, err := unprivileged()
	if err != nil {
		return location{}, err
	}
	if reachable(filepath.Dir(dir), credential) {
		return location{dir: dir, data: dir, credential: credential}, nil
	}
	return location{dir: dir, data: filepath.Join(systemRoot, digest(dir)), credential: credential}, nil
}

func locateExisting(dir string) (location, error) {
	data, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return location{}, err
	}
	info, err := os.Stat(data)
	if err != nil {
		return location{}, err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if self := os.Geteuid(); self != 0 {
		if owner.Uid != uint32(self) {
			return location{}, fmt.Errorf("the data in %s belong to the user with id %d: run as that user or as root", dir, owner.Uid)
		}
		return location{dir: dir, data: data}, nil
	}
	// The data keep their owner, who may want to start without root again.
	credential := &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	rooted := owner.Uid == 0
	if rooted {
		if credential, err = unprivileged(); err != nil {
			return location{}, err
		}
	}
	if !reachable(filepath.Dir(data), credential) {
		return location{}, fmt.Errorf("the user with id %d, which has to run Postgres, cannot access the data in %s", credential.Uid, data)
	}
	return location{dir: dir, data: data, credential: credential, rooted: rooted}, nil
}

// unprivileged returns the user as which root runs Postgres.
func unprivileged() (*syscall.Credential, error) {
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("root cannot run Postgres, and there is no user postgres or nobody: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(account.Gid, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("user %s: %w", account.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// reachable reports whether a user may pass through dir, according to the permission bits of
// dir and its parents.
func reachable(dir string, user *syscall.Credential) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		owner := info.Sys().(*syscall.Stat_t)
		pass := fs.FileMode(0o001)
		switch {
		case owner.Uid == user.Uid:
			pass = 0o100
		case owner.Gid == user.Gid:
			pass = 0o010
		}
		if info.Mode()&pass == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// chown gives path, which belongs to root, and everything below it to the location's user. The
// path itself comes last: until then that user cannot enter it and put a link where root is
// about to pass.
func (l location) chown(path string) error {
	if l.credential == nil {
		return nil
	}
	var paths []string
	err := filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(paths) {
		if err := os.Lchown(path, int(l.credential.Uid), int(l.credential.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// digest returns a short, practically unique name for a path.
func digest(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:8])
}

// clusterName returns the name of the cluster in the command lines of its processes.
func clusterName(data string) string { return "plugcast-" + digest(data) }
