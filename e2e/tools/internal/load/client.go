package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxIdle bounds the connections that wait for their next request.
const maxIdle = 4096

// maxBody bounds the answer that a server may send.
const maxBody = 1 << 20

// Kind says why a request failed.
type Kind string

// Kinds of failure; KindNone is success.
const (
	KindNone     Kind = ""
	KindConnect  Kind = "connect"
	KindTimeout  Kind = "timeout"
	KindReset    Kind = "reset"
	KindClosed   Kind = "closed"
	KindStatus   Kind = "status"
	KindProtocol Kind = "protocol"
	KindOverload Kind = "overload"
)

// Result is what became of one request.
type Result struct {
	Intended time.Time
	Latency  time.Duration // from the intended time, so a late start counts
	Backend  string
	Local    string
	NewConn  bool
	Retried  bool
	Kind     Kind
	Err      error
}

// client sends requests over connections that it manages itself: net/http repeats requests on its own account, and
// here each repetition has to be known.
type client struct {
	target   *url.URL
	address  string
	timeout  time.Duration
	perConn  int
	mutex    sync.Mutex
	idle     []*connection // first in, first out: every connection gets its turn
	maxIdle  int
	header   http.Header
	dialer   net.Dialer
	isClosed bool
}

// connection is one TCP connection with its unread bytes.
type connection struct {
	net.Conn
	reader *bufio.Reader
	served int
}

// errBeforeFirstByte marks a connection that ended before the answer began.
var errBeforeFirstByte = errors.New("connection ended before the first byte of the answer")

func newClient(target *url.URL, timeout time.Duration, perConn int) *client {
	port := target.Port()
	if port == "" {
		port = "80"
	}
	return &client{
		target:  target,
		address: net.JoinHostPort(target.Hostname(), port),
		timeout: timeout,
		perConn: perConn,
		maxIdle: maxIdle,
		header:  http.Header{"User-Agent": {"penstock-loadgen"}},
	}
}

// do sends one request. On a kept-alive connection that the other side closed before any byte of the answer it is
// sent once more, on a new connection: a race that HTTP allows and every client has to handle.
func (c *client) do(intended time.Time, fresh bool) Result {
	deadline := intended.Add(c.timeout)
	result := Result{Intended: intended}
	var conn *connection
	if !fresh {
		conn = c.take()
	}
	reused := conn != nil
	err := c.attempt(&result, conn, deadline, fresh)
	if err != nil && reused && errors.Is(err, errBeforeFirstByte) && !isTimeout(err) {
		result.Retried = true
		err = c.attempt(&result, nil, deadline, fresh)
	}
	result.Latency = time.Since(intended)
	if err != nil {
		result.Err = err
		result.Kind = kindOf(err)
	}
	return result
}

func (c *client) attempt(result *Result, conn *connection, deadline time.Time, last bool) error {
	if conn == nil {
		result.NewConn = true
		dialer := c.dialer
		dialer.Deadline = deadline
		raw, err := dialer.Dial("tcp", c.address)
		if err != nil {
			return &failure{KindConnect, err}
		}
		conn = &connection{Conn: raw, reader: bufio.NewReader(raw)}
	}
	result.Local = conn.LocalAddr().String()
	conn.served++
	last = last || (c.perConn > 0 && conn.served >= c.perConn)
	keep, err := c.exchange(result, conn, deadline, last)
	if err != nil || !keep || !c.put(conn) {
		// Closing can only fail on a connection that is broken already.
		_ = conn.Close()
	}
	return err
}

func (c *client) exchange(result *Result, conn *connection, deadline time.Time, last bool) (bool, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return false, &failure{KindClosed, err}
	}
	request := &http.Request{Method: http.MethodGet, URL: c.target, Host: c.target.Host, Header: c.header, Close: last}
	if err := request.Write(conn); err != nil {
		return false, fmt.Errorf("%w: %w", errBeforeFirstByte, err)
	}
	if _, err := conn.reader.Peek(1); err != nil {
		return false, fmt.Errorf("%w: %w", errBeforeFirstByte, err)
	}
	answer, err := http.ReadResponse(conn.reader, request)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	size, err := io.Copy(io.Discard, io.LimitReader(answer.Body, maxBody+1))
	if err != nil {
		return false, err
	}
	result.Backend = answer.Header.Get("X-Backend")
	switch {
	case size > maxBody:
		return false, &failure{KindProtocol, fmt.Errorf("answer is longer than %d bytes", maxBody)}
	case answer.StatusCode != http.StatusOK:
		return !last && !answer.Close, &failure{KindStatus, fmt.Errorf("status %s", answer.Status)}
	}
	return !last && !answer.Close, nil
}

func (c *client) take() *connection {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if len(c.idle) == 0 {
		return nil
	}
	conn := c.idle[0]
	c.idle = c.idle[1:]
	return conn
}

func (c *client) put(conn *connection) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.isClosed || len(c.idle) >= c.maxIdle {
		return false
	}
	c.idle = append(c.idle, conn)
	return true
}

func (c *client) close() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.isClosed = true
	for _, conn := range c.idle {
		// Nothing is under way on an idle connection.
		_ = conn.Close()
	}
	c.idle = nil
}

// failure is an error whose kind is known where it happens.
type failure struct {
	kind Kind
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func kindOf(err error) Kind {
	var known *failure
	switch {
	case isTimeout(err):
		return KindTimeout
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		if errors.As(err, &known) {
			return known.kind
		}
		return KindReset
	case errors.As(err, &known):
		var network net.Error
		if known.kind == KindConnect && errors.As(err, &network) && network.Timeout() {
			return KindTimeout
		}
		return known.kind
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return KindClosed
	}
	return KindProtocol
}
