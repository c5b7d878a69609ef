// Command loadgen sends HTTP requests at a constant rate and writes what became of them as JSON lines.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"penstock.dev/e2e/tools/internal/load"
)

// lines writes JSON lines; each is flushed, so that somebody may follow the file.
type lines struct{ buffer *bufio.Writer }

func (l lines) Write(line any) error {
	if err := json.NewEncoder(l.buffer).Encode(line); err != nil {
		return err
	}
	return l.buffer.Flush()
}

func main() {
	var options load.Options
	flag.StringVar(&options.Target, "target", "", "URL to get, http://HOST[:PORT]/PATH")
	flag.Float64Var(&options.Rate, "rate", 100, "requests per second")
	flag.DurationVar(&options.Duration, "duration", 10*time.Second, "how long to send")
	flag.DurationVar(&options.Interval, "interval", time.Second, "time between lines of the report")
	flag.DurationVar(&options.Timeout, "timeout", 15*time.Second, "longest wait for an answer, from the intended time")
	flag.Float64Var(&options.NewShare, "new-share", 0.5, "share of requests that get a connection of their own")
	flag.IntVar(&options.PerConn, "requests-per-connection", 20, "requests on a kept-alive connection; 0 is no limit")
	flag.IntVar(&options.MaxInFlight, "max-in-flight", 20_000, "requests under way at most")
	flag.BoolVar(&options.Requests, "log-requests", false, "write a line per request, not only per failed one")
	out := flag.String("out", "-", "file for the report, - is standard output")
	flag.Parse()
	if err := run(options, *out); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func run(options load.Options, out string) (err error) {
	if err := options.Validate(); err != nil {
		return err
	}
	var destination io.Writer = os.Stdout
	if out != "-" {
		file, err := os.Create(out)
		if err != nil {
			return err
		}
		defer func() {
			if closing := file.Close(); err == nil {
				err = closing
			}
		}()
		destination = file
	}
	report := lines{bufio.NewWriter(destination)}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	summary, err := load.Run(ctx, options, report)
	if err != nil {
		return err
	}
	return report.Write(summary)
}
