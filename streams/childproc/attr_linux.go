package childproc

import "syscall"

// childAttr puts a child into a process group of its own, so that a Ctrl-C in
// the terminal reaches this process alone and children end in the order that
// it chooses; and has the kernel send death when the parent thread ends.
func childAttr(death syscall.Signal, cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death, Credential: cred}
}
