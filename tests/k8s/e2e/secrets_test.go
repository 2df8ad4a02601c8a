package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/process"
)

// atOnce is how many callers the tests have.
const atOnce = 32

// ledger knows every Secret that kube-apiserver has acknowledged, and what must be in it.
type ledger struct {
	canary string // in every value, and so nowhere in etcd

	lock   sync.Mutex
	values map[string][]byte
}

func newLedger() *ledger {
	return &ledger{canary: "canary-" + rand.Text(), values: make(map[string][]byte)}
}

// write creates a Secret and, once it was acknowledged, enters it.
func (l *ledger) write(server *cluster.APIServer, name string) error {
	value := fmt.Appendf(nil, "%s %s %s", l.canary, name, rand.Text())
	if err := server.Create(cluster.NewSecret(name, value)); err != nil {
		return err
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	l.values[name] = value
	return nil
}

// writeMany creates that many Secrets, with names that begin with prefix.
func (l *ledger) writeMany(t *testing.T, server *cluster.APIServer, prefix string, count int) {
	t.Helper()
	names := make([]string, count)
	for n := range names {
		names[n] = fmt.Sprintf("%s-%d", prefix, n)
	}
	begin := time.Now()
	each(t, "writing", names, func(name string) error { return l.write(server, name) })
	t.Logf("%d Secrets written in %v", count, time.Since(begin))
}

// readAll reads every Secret.
func (l *ledger) readAll(t *testing.T, server *cluster.APIServer) {
	t.Helper()
	names := l.names()
	begin := time.Now()
	each(t, "reading", names, func(name string) error { return l.check(server, name) })
	t.Logf("%d Secrets read back and compared in %v", len(names), time.Since(begin))
}

// names returns the Secrets entered so far.
func (l *ledger) names() []string {
	l.lock.Lock()
	defer l.lock.Unlock()
	names := make([]string, 0, len(l.values))
	for name := range l.values {
		names = append(names, name)
	}
	return names
}

// check reads one Secret and compares it with what was acknowledged.
func (l *ledger) check(server *cluster.APIServer, name string) error {
	secret, err := server.Get(name)
	if err != nil {
		return err
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	if !bytes.Equal(secret.Data["value"], l.values[name]) {
		return fmt.Errorf("Secret %s holds %q, acknowledged was %q", name, secret.Data["value"], l.values[name])
	}
	return nil
}

// each calls act for all names, many at once, and fails the test with how many went wrong.
func each(t *testing.T, what string, names []string, act func(name string) error) {
	t.Helper()
	var (
		next    atomic.Int64
		workers sync.WaitGroup
		lock    sync.Mutex
		wrong   []error
	)
	for range atOnce {
		workers.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(names)); n = next.Add(1) - 1 {
				if err := act(names[n]); err != nil {
					lock.Lock()
					wrong = append(wrong, err)
					lock.Unlock()
				}
			}
		})
	}
	workers.Wait()
	if len(wrong) > 0 {
		t.Fatalf("%s: %d of %d went wrong, for example: %v", what, len(wrong), len(names), wrong[0])
	}
}

// traffic reads and writes until it is told to stop.
type traffic struct {
	stop    chan struct{}
	once    sync.Once
	workers sync.WaitGroup
	reads   atomic.Int64
	writes  atomic.Int64
	failed  atomic.Int64
	first   atomic.Pointer[error]
}

// start runs two readers and two writers, each of which waits for pace between two writes. Names of new Secrets begin with prefix.
func (l *ledger) start(server *cluster.APIServer, prefix string, pace time.Duration) *traffic {
	f := &traffic{stop: make(chan struct{})}
	known := l.names()
	loop := func(count *atomic.Int64, pace time.Duration, act func(n int) error) {
		f.workers.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-f.stop:
					return
				case <-tick.C:
				}
				if err := act(n); err != nil {
					f.failed.Add(1)
					f.first.CompareAndSwap(nil, &err)
				} else {
					count.Add(1)
				}
			}
		})
	}
	for w := range 2 {
		loop(&f.reads, time.Millisecond, func(n int) error { return l.check(server, known[(n*7+w)%len(known)]) })
		loop(&f.writes, pace, func(n int) error { return l.write(server, fmt.Sprintf("%s-%d-%d", prefix, w, n)) })
	}
	return f
}

// flows waits until there was more of both.
func (f *traffic) flows(t *testing.T) {
	t.Helper()
	reads, writes := f.reads.Load()+20, f.writes.Load()+20
	err := process.Until(60*time.Second, 10*time.Millisecond, func() error {
		if f.reads.Load() < reads || f.writes.Load() < writes {
			return fmt.Errorf("%d reads and %d writes so far, want %d and %d", f.reads.Load(), f.writes.Load(), reads, writes)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("the traffic has stopped: %v", err)
	}
}

// halt stops the traffic.
func (f *traffic) halt() {
	f.once.Do(func() { close(f.stop) })
	f.workers.Wait()
}

// end stops the traffic and returns the first thing that went wrong.
func (f *traffic) end() error {
	f.halt()
	if err := f.first.Load(); err != nil {
		return *err
	}
	return nil
}
