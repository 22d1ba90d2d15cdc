//go:build !linux

package childproc

import "syscall"

// childAttr puts a child into a process group of its own. Only Linux can also
// end it with its parent.
func childAttr(_ syscall.Signal, cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: cred}
}
