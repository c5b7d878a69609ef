// Package load sends HTTP requests at a constant rate, whatever the answers do, and measures each from the moment at
// which it was due: a server that stalls is charged for every request that its stall delayed.
package load

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"
)

// Options say what is sent.
type Options struct {
	Target      string
	Rate        float64       // requests per second
	Duration    time.Duration // of sending; answers may come later
	Interval    time.Duration // between lines of the report
	Timeout     time.Duration // per request, from its intended time
	NewShare    float64       // share of requests that get a connection of their own
	PerConn     int           // requests after which a kept-alive connection is closed; 0 is never
	MaxInFlight int           // bounds memory; a request beyond it fails as overload
	Requests    bool          // a line per request in the report, too
}

// Validate names the option that makes no sense.
func (o Options) Validate() error {
	target, err := url.Parse(o.Target)
	switch {
	case err != nil:
		return fmt.Errorf("--target: %w", err)
	case target.Scheme != "http" || target.Hostname() == "":
		return fmt.Errorf("--target: %q is not http://HOST[:PORT]/PATH", o.Target)
	case o.Rate <= 0 || o.Rate > 100_000:
		return fmt.Errorf("--rate: %g is not in (0, 100000] requests per second", o.Rate)
	case o.Duration <= 0 || o.Interval <= 0 || o.Timeout <= 0:
		return errors.New("--duration, --interval and --timeout have to be positive")
	case o.NewShare < 0 || o.NewShare > 1:
		return fmt.Errorf("--new-share: %g is not in [0, 1]", o.NewShare)
	case o.PerConn < 0:
		return fmt.Errorf("--requests-per-connection: %d is negative; 0 keeps connections for ever", o.PerConn)
	case o.MaxInFlight < 1:
		return fmt.Errorf("--max-in-flight: %d is less than 1", o.MaxInFlight)
	}
	return nil
}

// Run sends until the duration is over or ctx ends, waits for the answers under way and returns the summary.
func Run(ctx context.Context, options Options, sink Sink) (Summary, error) {
	if err := options.Validate(); err != nil {
		return Summary{}, err
	}
	target, err := url.Parse(options.Target)
	if err != nil {
		return Summary{}, err
	}
	requests := newClient(target, options.Timeout, options.PerConn)
	defer requests.close()

	results := make(chan Result, 1024)
	report := newReport(options, sink, time.Now())
	collected := make(chan error, 1)
	go func() { collected <- report.collect(results) }()
	pace(ctx, options, report.began, requests, results)
	close(results)
	err = <-collected
	return report.summary(time.Now()), err
}

// pace starts request i at began + i/rate. When it is behind, it catches up at once: requests that are late are sent
// late, never skipped, and their latency says so.
func pace(ctx context.Context, options Options, began time.Time, requests *client, results chan<- Result) {
	var underWay sync.WaitGroup
	defer underWay.Wait()
	slots := make(chan struct{}, options.MaxInFlight)
	total := int(options.Rate * options.Duration.Seconds())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := range total {
		intended := began.Add(time.Duration(float64(i) / options.Rate * float64(time.Second)))
		if wait := time.Until(intended); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			results <- Result{Intended: intended, Latency: time.Since(intended), Kind: KindOverload, Err: errOverload}
			continue
		}
		fresh := isFresh(i, options.NewShare)
		underWay.Go(func() {
			results <- requests.do(intended, fresh)
			<-slots
		})
	}
}

var errOverload = errors.New("too many requests under way: raise --max-in-flight or lower --rate")

// isFresh spreads the share of new connections evenly over the requests, without chance.
func isFresh(i int, share float64) bool {
	return int(float64(i+1)*share) > int(float64(i)*share)
}
