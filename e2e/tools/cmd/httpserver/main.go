// Command httpserver serves a page that costs processor time, and says which backend it is.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"penstock.dev/e2e/tools/internal/server"
)

func main() {
	listen := flag.String("listen", ":8080", "address to serve on")
	iterations := flag.Int("iterations", server.DefaultIterations, "rounds of hashing per page")
	grace := flag.Duration("grace", 20*time.Second, "time that running requests get after SIGTERM")
	flag.Parse()

	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := serve(log, *listen, *iterations, *grace); err != nil {
		log.Error("server ended", "error", err)
		os.Exit(1)
	}
}

func serve(log *slog.Logger, address string, iterations int, grace time.Duration) error {
	name, err := backendName()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	site := server.Server{Backend: name, Node: os.Getenv("NODE_NAME"), Iterations: iterations}
	web := &http.Server{Handler: site.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute}
	log.Info("serving", "address", listener.Addr().String(), "backend", name, "iterations", iterations)

	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(listener) }()
	select {
	case err = <-ended:
		return err
	case <-stopping.Done():
	}
	bounded, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err = web.Shutdown(bounded); errors.Is(err, context.DeadlineExceeded) {
		return web.Close()
	}
	return err
}

// backendName is the pod's name where Kubernetes tells it, else the host's.
func backendName() (string, error) {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name, nil
	}
	return os.Hostname()
}
