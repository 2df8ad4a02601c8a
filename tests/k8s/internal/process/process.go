// Package process runs servers for the length of a test: whatever way the test ends, none of them outlives it.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// grace is how long a server has to end after SIGTERM. kube-apiserver drains for some seconds; the rest end at once.
const grace = 30 * time.Second

// Process is a running server.
type Process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	stop sync.Once
}

// Start runs cmd until the test ends. Its standard error, and its standard output where cmd does not take it, go to a
// file in dir, whose end is printed when the test has failed.
func Start(t testing.TB, dir, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	path := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	// A group of its own, so that a Ctrl-C goes to the test alone, which then stops its servers in order. Should the test
	// be killed, the kernel tells the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s does not start: %v", name, err)
	}
	p := &Process{t: t, name: name, cmd: cmd, log: path, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, p.Tail(40))
		}
	})
	return p
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop ends the process by SIGTERM and waits for it. One that does not end in time is killed, and fails the test.
func (p *Process) Stop() {
	p.stop.Do(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(grace):
			p.t.Errorf("%s did not end within %v of SIGTERM; it is in state %s", p.name, grace, p.state())
		}
		// What is left of its group, if anything, goes with it.
		if err := syscall.Kill(-p.PID(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			p.t.Errorf("the process group of %s cannot be killed: %v", p.name, err)
		}
		<-p.done
	})
}

// state is what the kernel says the process does, "Z (zombie)" for instance.
func (p *Process) state() string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	_, rest, _ := strings.Cut(string(text), "State:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// Tail returns the last lines of the log.
func (p *Process) Tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// Dir makes a private folder that goes away with the test. t.TempDir holds the name of the test, and a path to a unix
// socket may have 107 bytes only (unix(7)).
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ns-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	return dir
}

// Port returns a TCP port of the loopback interface that was free a moment ago.
func Port(t testing.TB) int {
	t.Helper()
	for range portCount {
		port := portFirst + (os.Getpid()*97+int(portNext.Add(1)))%portCount
		if listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			listener.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// Below the kernel's range for outgoing connections, and never the same twice in one process: a port that is only free at the
// moment can be another server's by the time that ours listens.
const (
	portFirst = 20_000
	portCount = 12_000
)

var portNext atomic.Int64

// Until calls condition every interval until it returns nil. When limit has passed it returns what was wrong last.
func Until(limit, interval time.Duration, condition func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
		time.Sleep(interval)
	}
}

// Binary returns the path of an executable in the folder that the environment variable names.
func Binary(t testing.TB, variable, name string) string {
	t.Helper()
	dir := os.Getenv(variable)
	if dir == "" {
		t.Fatalf("%s is not set: run `make e2e`, which builds what these tests start and tells them where it is", variable)
	}
	path := filepath.Join(dir, name)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		t.Fatalf("%s is not in %s=%s: run `make e2e`, which builds what these tests start", name, variable, dir)
	}
	return path
}
