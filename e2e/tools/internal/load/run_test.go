package load

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// memory is a sink that keeps its lines.
type memory struct {
	mutex sync.Mutex
	lines []any
}

func (m *memory) Write(line any) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.lines = append(m.lines, line)
	return nil
}

func options(target string) Options {
	return Options{
		Target:      target,
		Rate:        200,
		Duration:    500 * time.Millisecond,
		Interval:    100 * time.Millisecond,
		Timeout:     2 * time.Second,
		NewShare:    0.5,
		MaxInFlight: 1000,
	}
}

func run(t *testing.T, options Options) (Summary, *memory) {
	t.Helper()
	sink := &memory{}
	summary, err := Run(context.Background(), options, sink)
	if err != nil {
		t.Fatal(err)
	}
	return summary, sink
}

func named(name string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Backend", name)
		next(w, r)
	}
}

func TestEveryRequestIsSentAndCountedOnce(t *testing.T) {
	var connections atomic.Int64
	site := httptest.NewUnstartedServer(named("web-1", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	site.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	site.Start()
	defer site.Close()
	summary, sink := run(t, options(site.URL))
	if summary.Completed != 100 || summary.Failed != 0 || summary.Backends["web-1"] != 100 {
		t.Errorf("summary %+v", summary.Counts)
	}
	if summary.NewConnections < 50 || summary.NewConnections > 60 || summary.NewConnections != connections.Load() {
		t.Errorf("%d new connections counted, the server saw %d", summary.NewConnections, connections.Load())
	}
	var inIntervals int64
	for _, line := range sink.lines {
		inIntervals += line.(Interval).Completed
	}
	if inIntervals != 100 {
		t.Errorf("intervals hold %d requests", inIntervals)
	}
}

func TestAStallIsChargedToEveryRequestThatItDelayed(t *testing.T) {
	began := time.Now()
	const stall = 300 * time.Millisecond
	var gate sync.Mutex
	site := httptest.NewServer(named("web-1", func(http.ResponseWriter, *http.Request) {
		gate.Lock()
		defer gate.Unlock()
		if rest := stall - time.Since(began); rest > 0 {
			time.Sleep(rest)
		}
	}))
	defer site.Close()
	summary, _ := run(t, options(site.URL))
	// 60 of 100 requests were due during the stall and waited 150 ms of it on average: a closed loop would show one.
	if summary.Completed != 100 || summary.Latency.P50 < 30 || summary.Latency.Max < 250 {
		t.Errorf("latency %+v of %d requests", summary.Latency, summary.Completed)
	}
}

func TestConnectionsAreClosedAfterTheirShareOfRequests(t *testing.T) {
	site := httptest.NewServer(named("web-1", func(http.ResponseWriter, *http.Request) {}))
	defer site.Close()
	limited := options(site.URL)
	limited.NewShare, limited.PerConn = 0, 10
	summary, _ := run(t, limited)
	if summary.Completed != 100 || summary.NewConnections < 10 {
		t.Errorf("%d requests over %d connections of 10 at most", summary.Completed, summary.NewConnections)
	}
}

// serveRaw answers each connection with `respond` until it returns false.
func serveRaw(t *testing.T, respond func(conn net.Conn, served int) bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				reader := bufio.NewReader(conn)
				for served := 0; ; served++ {
					if _, err := http.ReadRequest(reader); err != nil || !respond(conn, served) {
						return
					}
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String() + "/"
}

const hello = "HTTP/1.1 200 OK\r\nX-Backend: raw\r\nContent-Length: 2\r\n\r\nok"

func TestAReusedConnectionThatClosedIsRetriedOnceAndCountedApart(t *testing.T) {
	target := serveRaw(t, func(conn net.Conn, served int) bool {
		if served > 0 {
			return false // closes a kept-alive connection before any byte of its second answer
		}
		_, err := conn.Write([]byte(hello))
		return err == nil
	})
	reusing := options(target)
	reusing.NewShare = 0
	summary, _ := run(t, reusing)
	if summary.Completed != 100 || summary.Failed != 0 || summary.Retried == 0 {
		t.Errorf("summary %+v", summary.Counts)
	}
}

func TestANewConnectionThatClosedIsAFailure(t *testing.T) {
	target := serveRaw(t, func(net.Conn, int) bool { return false })
	summary, sink := run(t, options(target))
	if summary.Failed != 100 || summary.Retried != 0 || summary.Failures[KindClosed]+summary.Failures[KindReset] != 100 {
		t.Errorf("summary %+v", summary.Counts)
	}
	errors := 0
	for _, line := range sink.lines {
		if line, is := line.(Line); is && line.Error != "" && !line.Intended.IsZero() {
			errors++
		}
	}
	if errors != 100 || summary.FirstFailed == "" {
		t.Errorf("%d failures have a line of their own", errors)
	}
}

func TestAnAnswerThatBreaksOffIsNotRetried(t *testing.T) {
	target := serveRaw(t, func(conn net.Conn, served int) bool {
		if served == 0 {
			_, err := conn.Write([]byte(hello))
			return err == nil
		}
		_, _ = conn.Write([]byte(hello[:len(hello)-1]))
		return false
	})
	reusing := options(target)
	reusing.NewShare = 0
	summary, _ := run(t, reusing)
	if summary.Failures[KindClosed] == 0 || summary.Retried != 0 {
		t.Errorf("summary %+v", summary.Counts)
	}
}

func TestFailuresHaveTheirKind(t *testing.T) {
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer busy.Close()
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer silent.Close()
	defer close(release)
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + refusing.Addr().String()
	_ = refusing.Close()
	garbled := serveRaw(t, func(conn net.Conn, _ int) bool { _, _ = conn.Write([]byte("nonsense\r\n")); return false })

	for target, want := range map[string]Kind{
		busy.URL: KindStatus, silent.URL: KindTimeout, refused: KindConnect, garbled: KindProtocol,
	} {
		short := options(target)
		short.Rate, short.Duration, short.Timeout = 20, 200*time.Millisecond, 200*time.Millisecond
		if summary, _ := run(t, short); summary.Failures[want] != 4 {
			t.Errorf("%s: %+v, want 4 of kind %s", target, summary.Failures, want)
		}
	}
}

func TestRequestsUnderWayAreBounded(t *testing.T) {
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer silent.Close()
	defer close(release)
	bounded := options(silent.URL)
	bounded.MaxInFlight, bounded.Timeout = 10, 600*time.Millisecond
	summary, _ := run(t, bounded)
	if summary.Failures[KindOverload] != 90 || summary.Failures[KindTimeout] != 10 {
		t.Errorf("failures %+v", summary.Failures)
	}
}

func TestAnInterruptStillGivesASummary(t *testing.T) {
	site := httptest.NewServer(named("web-1", func(http.ResponseWriter, *http.Request) {}))
	defer site.Close()
	endless := options(site.URL)
	endless.Duration = time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	summary, err := Run(ctx, endless, &memory{})
	if err != nil || summary.Completed < 40 || summary.Completed > 70 || summary.Failed != 0 {
		t.Errorf("summary %+v, %v", summary.Counts, err)
	}
}

func TestOptionsAreValidated(t *testing.T) {
	for _, change := range []func(*Options){
		func(o *Options) { o.Target = "web:80" },
		func(o *Options) { o.Target = "https://web/" },
		func(o *Options) { o.Rate = 0 },
		func(o *Options) { o.Duration = -time.Second },
		func(o *Options) { o.NewShare = 1.5 },
		func(o *Options) { o.PerConn = -1 },
		func(o *Options) { o.MaxInFlight = 0 },
	} {
		wrong := options("http://web/")
		change(&wrong)
		if wrong.Validate() == nil {
			t.Errorf("%+v passes", wrong)
		}
	}
}
