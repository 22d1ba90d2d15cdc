package childproc

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Ports are taken from below the range that the kernel gives to outgoing
// connections (from 32768 on Linux). A port from within it could not be had
// again after a restart if some connection used it meanwhile; and a client
// that redials it while nobody listens can end up connected to itself.
const (
	firstPort = 20000
	lastPort  = 31999
)

// freePort returns a port on 127.0.0.1 that nobody listens on right now.
func freePort() (int, error) {
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if !portTaken(port) {
			return port, nil
		}
	}
	return 0, errors.New("childproc: no free port on 127.0.0.1")
}

// portTaken tells whether another program listens on the port.
func portTaken(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return errors.Is(err, syscall.EADDRINUSE)
	}
	_ = l.Close()
	return false
}
