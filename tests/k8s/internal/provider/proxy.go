package provider

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// proxy stands before one server: it counts what is asked, and while it is off it resets every connection.
type proxy struct {
	net.Listener

	lock  sync.Mutex
	off   bool
	open  map[*connection]bool
	calls map[string]int
}

// connection is one that the proxy has taken.
type connection struct {
	net.Conn
	of *proxy
}

// startProxy forwards HTTP/1.1 to an http address until the test ends. Calls are counted under what name gives them.
func startProxy(t testing.TB, target string, name func(*http.Request) string) *proxy {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return forward(t, listener, to, &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}, name)
}

// startSocketProxy forwards HTTP/2 from one unix socket to another, and counts calls by their path.
func startSocketProxy(t testing.TB, socket, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		DisableCompression: true,
		Protocols:          new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", target)
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	to := &url.URL{Scheme: "http", Host: "localhost"}
	return forward(t, listener, to, transport, func(r *http.Request) string { return r.URL.Path })
}

// forward serves the listener until the test ends.
func forward(t testing.TB, listener net.Listener, to *url.URL, transport *http.Transport, name func(*http.Request) string) *proxy {
	p := &proxy{Listener: listener, open: make(map[*connection]bool), calls: make(map[string]int)}
	quiet := log.New(io.Discard, "", 0)
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			// Signatures cover the name that the client knows.
			r.Out.Host = r.In.Host
		},
		Transport: transport,
		ErrorLog:  quiet,
	}
	server := &http.Server{ErrorLog: quiet, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.lock.Lock()
		p.calls[name(r)]++
		p.lock.Unlock()
		reverse.ServeHTTP(w, r)
	})}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- server.Serve(p) }()
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the proxy before %s has ended: %v", to, err)
		}
	})
	return p
}

// url is where clients find it.
func (p *proxy) url() string { return "http://" + p.Addr().String() }

// Accept gives the next connection of those that come while it is on.
func (p *proxy) Accept() (net.Conn, error) {
	for {
		taken, err := p.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: taken, of: p}
		p.lock.Lock()
		off := p.off
		if !off {
			p.open[c] = true
		}
		p.lock.Unlock()
		if !off {
			return c, nil
		}
		c.reset()
	}
}

// Close forgets the connection too.
func (c *connection) Close() error {
	c.of.lock.Lock()
	delete(c.of.open, c)
	c.of.lock.Unlock()
	return c.Conn.Close()
}

// reset ends the connection as a host does that knows nothing of it.
func (c *connection) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Conn.Close()
}

// Off takes the provider away, in the middle of whatever it does.
func (p *proxy) Off() {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.off = true
	for c := range p.open {
		c.reset()
	}
}

// On brings it back.
func (p *proxy) On() {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.off = false
}

// Calls returns how often each thing was asked.
func (p *proxy) Calls() map[string]int {
	p.lock.Lock()
	defer p.lock.Unlock()
	calls := make(map[string]int, len(p.calls))
	for name, count := range p.calls {
		calls[name] = count
	}
	return calls
}
