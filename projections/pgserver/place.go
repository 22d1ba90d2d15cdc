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

// systemRoot keeps the data of clusters whose own place the user that runs
// Postgres cannot get to.
const systemRoot = "/var/lib/plugcast"

// place is where the data of a cluster are and whose they are.
type place struct {
	// dir is what the caller asked for, data is where the data really are.
	dir, data string
	// credential is whom the data belong to; nil is the user of this process.
	credential *syscall.Credential
	// rooted tells that the data are root's still, and have to be given away.
	rooted bool
}

// moved tells whether the data are somewhere else than asked for.
func (p place) moved() bool { return p.dir != p.data }

// locate finds the place of the cluster in dir, or the best for a new one. It
// changes nothing.
func locate(dir string) (place, error) {
	_, err := os.Stat(filepath.Join(dir, versionFile))
	switch {
	case err == nil:
		return locateExisting(dir)
	case errors.Is(err, fs.ErrPermission):
		return place{}, fmt.Errorf("the data in %s belong to another user: run as that user or as root", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return place{}, err
	}
	if os.Geteuid() != 0 {
		return place{dir: dir, data: dir}, nil
	}
	credential, err := unprivileged()
	if err != nil {
		return place{}, err
	}
	if reachable(filepath.Dir(dir), credential) {
		return place{dir: dir, data: dir, credential: credential}, nil
	}
	return place{dir: dir, data: filepath.Join(systemRoot, digest(dir)), credential: credential}, nil
}

func locateExisting(dir string) (place, error) {
	data, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return place{}, err
	}
	info, err := os.Stat(data)
	if err != nil {
		return place{}, err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if self := os.Geteuid(); self != 0 {
		if owner.Uid != uint32(self) {
			return place{}, fmt.Errorf("the data in %s belong to the user with id %d: run as that user or as root", dir, owner.Uid)
		}
		return place{dir: dir, data: data}, nil
	}
	// The data stay their owner's, who may want to start without root again.
	credential := &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	rooted := owner.Uid == 0
	if rooted {
		if credential, err = unprivileged(); err != nil {
			return place{}, err
		}
	}
	if !reachable(filepath.Dir(data), credential) {
		return place{}, fmt.Errorf("the user with id %d, who has to run Postgres, cannot get to the data in %s", credential.Uid, data)
	}
	return place{dir: dir, data: data, credential: credential, rooted: rooted}, nil
}

// unprivileged is the user as whom root runs Postgres.
func unprivileged() (*syscall.Credential, error) {
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("postgres does not run as root and there is no other user for it: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(account.Gid, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("user %s: %w", account.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// reachable tells whether a user may pass through dir, going by the permission
// bits of dir and of all above it.
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

// give makes path, which is root's, and all below it belong to the place's
// user. The path itself comes last: until then that user cannot get in and put
// a link where root is about to pass.
func (p place) give(path string) error {
	if p.credential == nil {
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
		if err := os.Lchown(path, int(p.credential.Uid), int(p.credential.Gid)); err != nil {
			return err
		}
	}
	return nil
}

// digest is a short name that is as good as unique to a path.
func digest(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:8])
}

// clusterName names the cluster in the command lines of its processes.
func clusterName(data string) string { return "plugcast-" + digest(data) }
