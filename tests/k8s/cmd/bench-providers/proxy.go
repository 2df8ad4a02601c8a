package main

import (
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// proxy makes a provider far away, and counts what it is asked.
type proxy struct {
	url    string
	server *http.Server

	mutex sync.Mutex
	calls map[string]int
}

func startProxy(to string, delay time.Duration) (*proxy, error) {
	target, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{url: "http://" + listener.Addr().String(), calls: map[string]int{}}
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		// Whoever was overtaken hangs up: no news.
		ErrorLog: log.New(discard{}, "", 0),
	}
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if parts := strings.Split(r.URL.Path, "/"); len(parts) > 3 { // /v1/MOUNT/VERB/KEY
			p.mutex.Lock()
			p.calls[parts[3]]++
			p.mutex.Unlock()
		}
		select {
		case <-time.After(delay):
			forward.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})}
	go p.server.Serve(listener)
	return p, nil
}

type discard struct{}

func (discard) Write(text []byte) (int, error) { return len(text), nil }

// counted is what has been asked so far.
func (p *proxy) counted() map[string]int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	copied := map[string]int{}
	for verb, calls := range p.calls {
		copied[verb] = calls
	}
	return copied
}

// settled waits until nothing was asked for a second: a node that has just started proves its provider by itself.
func (p *proxy) settled() map[string]int {
	for before := p.counted(); ; {
		time.Sleep(time.Second)
		now := p.counted()
		if maps.Equal(before, now) {
			return now
		}
		before = now
	}
}
