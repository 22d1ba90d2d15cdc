package server

import (
	"errors"
	"fmt"
	"net"
)

// Listen listens on HOST:PORT.
func Listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if operation := new(net.OpError); errors.As(err, &operation) {
		return nil, fmt.Errorf("cannot listen on %s (%w)", address, operation.Err)
	}
	return listener, err
}

// defaultAdminListen is the admin address if the configuration names none. If another
// process on the machine already uses it, this process takes a free port.
const defaultAdminListen = "127.0.0.1:9090"

// listenAdmin listens for operators.
func listenAdmin(address string) (net.Listener, error) {
	if address != "" {
		return Listen(address)
	}
	if listener, err := Listen(defaultAdminListen); err == nil {
		return listener, nil
	}
	return Listen("127.0.0.1:0")
}

// advertised is the address at which other processes reach a listener, if none is given.
func advertised(given string, listener net.Listener) (string, error) {
	if given != "" {
		return given, nil
	}
	own := listener.Addr().String()
	host, port, err := net.SplitHostPort(own)
	if err != nil {
		return "", fmt.Errorf("the address of the listener: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return own, nil
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("cannot read the addresses of this machine: %w", err)
	}
	for _, one := range addresses {
		if n, ok := one.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return net.JoinHostPort(n.IP.String(), port), nil
		}
	}
	return net.JoinHostPort("127.0.0.1", port), nil // this machine is on no network
}
