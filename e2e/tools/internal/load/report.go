package load

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	minLatencyMicroseconds = 1
	maxLatencyMicroseconds = int64(10 * time.Minute / time.Microsecond)
	significantFigures     = 3
	maxBackends            = 1024 // further names are counted under otherBackends
	otherBackends          = "(other)"
	noBackend              = "(none)"
)

// Sink takes one line of the report.
type Sink interface{ Write(line any) error }

// Latency are milliseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Counts are what happened in an interval, or in all.
type Counts struct {
	Completed      int64            `json:"completed"`
	Failed         int64            `json:"failed"`
	Retried        int64            `json:"retried"`
	NewConnections int64            `json:"new_connections"`
	Failures       map[Kind]int64   `json:"failures,omitempty"`
	Backends       map[string]int64 `json:"backends"`
	Latency        Latency          `json:"latency_ms"`
}

// Interval is a line of the report. Results belong to the interval in which they came.
type Interval struct {
	Type    string    `json:"type"`
	Time    time.Time `json:"time"`
	Elapsed float64   `json:"elapsed_s"`
	Seconds float64   `json:"seconds"`
	Counts
}

// Line is one failed request, or any request where each is asked for.
type Line struct {
	Type     string    `json:"type"`
	Time     time.Time `json:"time"`
	Intended time.Time `json:"intended"`
	Latency  float64   `json:"latency_ms"`
	Backend  string    `json:"backend,omitempty"`
	Local    string    `json:"local,omitempty"`
	NewConn  bool      `json:"new_connection"`
	Retried  bool      `json:"retried"`
	Kind     Kind      `json:"kind,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// Summary is the last line of the report.
type Summary struct {
	Type        string    `json:"type"`
	Target      string    `json:"target"`
	Began       time.Time `json:"began"`
	Ended       time.Time `json:"ended"`
	Rate        float64   `json:"rate"`
	Throughput  float64   `json:"throughput"`
	NewShare    float64   `json:"new_share"`
	FirstFailed string    `json:"first_failure,omitempty"`
	Counts
	PerBackend map[string]Latency `json:"backend_latency_ms"`
}

// tally counts results.
type tally struct {
	counts    Counts
	histogram *hdrhistogram.Histogram
}

func newTally() *tally {
	return &tally{
		counts:    Counts{Failures: map[Kind]int64{}, Backends: map[string]int64{}},
		histogram: hdrhistogram.New(minLatencyMicroseconds, maxLatencyMicroseconds, significantFigures),
	}
}

func (t *tally) add(result Result, backend string) {
	if result.Retried {
		t.counts.Retried++
	}
	if result.NewConn {
		t.counts.NewConnections++
	}
	if result.Kind != KindNone {
		t.counts.Failed++
		t.counts.Failures[result.Kind]++
		return
	}
	t.counts.Completed++
	t.counts.Backends[backend]++
	record(t.histogram, result.Latency)
}

func (t *tally) snapshot() Counts {
	counts := t.counts
	counts.Failures = maps.Clone(t.counts.Failures)
	counts.Backends = maps.Clone(t.counts.Backends)
	counts.Latency = latencyOf(t.histogram)
	return counts
}

func record(histogram *hdrhistogram.Histogram, latency time.Duration) {
	// Clamped into the histogram's range, RecordValue cannot fail.
	_ = histogram.RecordValue(min(max(latency.Microseconds(), minLatencyMicroseconds), maxLatencyMicroseconds))
}

func latencyOf(histogram *hdrhistogram.Histogram) Latency {
	milliseconds := func(quantile float64) float64 { return float64(histogram.ValueAtQuantile(quantile)) / 1000 }
	return Latency{
		Mean: histogram.Mean() / 1000,
		P50:  milliseconds(50),
		P90:  milliseconds(90),
		P99:  milliseconds(99),
		P999: milliseconds(99.9),
		Max:  float64(histogram.Max()) / 1000,
	}
}

// report gathers results; only the goroutine that collects touches it.
type report struct {
	options  Options
	sink     Sink
	began    time.Time
	total    *tally
	recent   *tally
	since    time.Time
	backends map[string]*hdrhistogram.Histogram
	first    string
}

func newReport(options Options, sink Sink, began time.Time) *report {
	return &report{
		options:  options,
		sink:     sink,
		began:    began,
		total:    newTally(),
		recent:   newTally(),
		since:    began,
		backends: map[string]*hdrhistogram.Histogram{},
	}
}

// collect takes results until there are no more. After a failed write it goes on taking, so that nobody blocks.
func (r *report) collect(results <-chan Result) error {
	ticker := time.NewTicker(r.options.Interval)
	defer ticker.Stop()
	var failed error
	for {
		select {
		case result, open := <-results:
			if !open {
				return cmp.Or(failed, r.interval(time.Now()))
			}
			failed = cmp.Or(failed, r.add(result))
		case now := <-ticker.C:
			failed = cmp.Or(failed, r.interval(now))
		}
	}
}

func (r *report) add(result Result) error {
	backend := r.backendOf(result)
	r.total.add(result, backend)
	r.recent.add(result, backend)
	line := Line{
		Type:     "request",
		Time:     result.Intended.Add(result.Latency),
		Intended: result.Intended,
		Latency:  float64(result.Latency.Microseconds()) / 1000,
		Backend:  result.Backend,
		Local:    result.Local,
		NewConn:  result.NewConn,
		Retried:  result.Retried,
		Kind:     result.Kind,
	}
	if result.Kind != KindNone {
		line.Type, line.Error = "error", result.Err.Error()
		if r.first == "" {
			r.first = line.Error
		}
	} else {
		record(r.backends[backend], result.Latency)
	}
	if line.Type == "error" || r.options.Requests {
		return r.sink.Write(line)
	}
	return nil
}

// backendOf returns the name that a result is counted under and makes sure that it has a histogram.
func (r *report) backendOf(result Result) string {
	name := cmp.Or(result.Backend, noBackend)
	if result.Kind != KindNone || r.backends[name] != nil {
		return name
	}
	if len(r.backends) >= maxBackends {
		name = otherBackends
	}
	if r.backends[name] == nil {
		r.backends[name] = hdrhistogram.New(minLatencyMicroseconds, maxLatencyMicroseconds, significantFigures-1)
	}
	return name
}

func (r *report) interval(now time.Time) error {
	line := Interval{
		Type:    "interval",
		Time:    now,
		Elapsed: now.Sub(r.began).Seconds(),
		Seconds: now.Sub(r.since).Seconds(),
		Counts:  r.recent.snapshot(),
	}
	r.recent, r.since = newTally(), now
	return r.sink.Write(line)
}

func (r *report) summary(now time.Time) Summary {
	perBackend := make(map[string]Latency, len(r.backends))
	for _, name := range slices.Sorted(maps.Keys(r.backends)) {
		perBackend[name] = latencyOf(r.backends[name])
	}
	return Summary{
		Type:        "summary",
		Target:      r.options.Target,
		Began:       r.began,
		Ended:       now,
		Rate:        r.options.Rate,
		Throughput:  float64(r.total.counts.Completed) / now.Sub(r.began).Seconds(),
		NewShare:    r.options.NewShare,
		FirstFailed: r.first,
		Counts:      r.total.snapshot(),
		PerBackend:  perBackend,
	}
}
