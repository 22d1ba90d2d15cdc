// Command protocolserver serves what the public test suites of the Engine.IO and
// Socket.IO protocols expect, with the protocol code of this repository and
// nothing else of it: Engine.IO at /engine.io/, which echoes, and Socket.IO at
// /socket.io/ with the namespaces / and /custom. It listens on 127.0.0.1, at the
// port in the environment variable PORT (3000).
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, net.JoinHostPort("127.0.0.1", cmp.Or(os.Getenv("PORT"), "3000"))); err != nil {
		fmt.Fprintln(os.Stderr, "protocolserver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address string) error {
	s, err := newProtocolServer(suites())
	if err != nil {
		return err
	}
	clocks, stopClocks := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(clocks) }()
	server := &http.Server{Addr: address, Handler: s, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	fmt.Println("listening on", address)
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = errors.Join(err, s.Shutdown(last), server.Shutdown(last))
	stopClocks()
	return errors.Join(err, <-ended)
}
