package machine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/guest"
)

// orderTime bounds what a program in the guest may take where the test says nothing else. Emulation makes all about ten
// times slower.
const orderTime = 10 * time.Minute

// agent is the host's end of the port.
type agent struct {
	port net.Conn
	up   chan struct{}

	lock  sync.Mutex
	last  int
	tasks map[int]*Task
	dead  bool
}

func newAgent(port net.Conn) *agent {
	a := &agent{port: port, up: make(chan struct{}), tasks: map[int]*Task{}}
	go a.listen()
	return a
}

func (a *agent) listen() {
	lines := bufio.NewReaderSize(a.port, 1<<20)
	isUp := false
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			a.lost()
			return
		}
		var event guest.Event
		if json.Unmarshal(line, &event) != nil {
			continue
		}
		if event.ID == 0 {
			if !isUp {
				isUp = true
				close(a.up)
			}
			continue
		}
		a.lock.Lock()
		task := a.tasks[event.ID]
		a.lock.Unlock()
		if task != nil {
			task.take(event)
		}
	}
}

// lost ends what was under way when the power went.
func (a *agent) lost() {
	a.lock.Lock()
	defer a.lock.Unlock()
	a.dead = true
	for _, task := range a.tasks {
		task.end(-1)
	}
}

func (a *agent) order(argv []string, stdin []byte) *Task {
	a.lock.Lock()
	a.last++
	task := &Task{argv: argv, done: make(chan struct{})}
	a.tasks[a.last] = task
	line, _ := json.Marshal(guest.Order{ID: a.last, Argv: argv, Stdin: stdin})
	dead := a.dead
	a.lock.Unlock()
	if _, err := a.port.Write(append(line, '\n')); dead || err != nil {
		task.end(-1)
	}
	return task
}

func (a *agent) close() { a.port.Close() }

// Task is a program that runs, or has run, in the guest.
type Task struct {
	argv []string
	done chan struct{}

	lock           sync.Mutex
	stdout, stderr bytes.Buffer
	code           int
	ended          bool
}

func (t *Task) take(event guest.Event) {
	t.lock.Lock()
	t.stdout.Write(event.Stdout)
	t.stderr.Write(event.Stderr)
	t.lock.Unlock()
	if event.Done {
		t.end(event.Code)
	}
}

func (t *Task) end(code int) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if !t.ended {
		t.ended, t.code = true, code
		close(t.done)
	}
}

// Stdout is what has arrived of it until now.
func (t *Task) Stdout() string {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.stdout.String()
}

// Said is what it has printed in all, and its exit code: -1 if the power went before.
func (t *Task) Said() (stdout, stderr string, code int) {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.stdout.String(), t.stderr.String(), t.code
}

// Wait waits for the end of the program.
func (t *Task) Wait(tb testing.TB) (stdout, stderr string, code int) {
	tb.Helper()
	select {
	case <-t.done:
	case <-time.After(orderTime):
		stdout, stderr, _ := t.Said()
		tb.Fatalf("%s does not end within %v\n%s%s", strings.Join(t.argv, " "), orderTime, stdout, stderr)
	}
	return t.Said()
}

// Start runs a program in the guest while the test goes on.
func (m *Machine) Start(argv ...string) *Task { return m.agent.order(argv, nil) }

// Try runs a program in the guest to its end.
func (m *Machine) Try(argv ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	return m.Start(argv...).Wait(m.t)
}

// Run runs a program that must succeed, and answers what it printed.
func (m *Machine) Run(argv ...string) string {
	m.t.Helper()
	stdout, stderr, code := m.Try(argv...)
	if code != 0 {
		m.t.Fatalf("%s: exit code %d\n%s%s", strings.Join(argv, " "), code, stdout, stderr)
	}
	return stdout
}

// Sh runs lines of sh(1) that must succeed.
func (m *Machine) Sh(script string) string {
	m.t.Helper()
	return m.Run("sh", "-euc", script)
}

// Write puts a file into the guest, and onto its disk.
func (m *Machine) Write(path, text string) {
	m.t.Helper()
	_, stderr, code := m.agent.order([]string{"sh", "-euc", `cat >"$0" && sync "$0"`, path}, []byte(text)).Wait(m.t)
	if code != 0 {
		m.t.Fatalf("cannot write %s: %s", path, stderr)
	}
}

// Until asks again until the program succeeds and its output satisfies want.
func (m *Machine) Until(limit time.Duration, what string, want func(stdout string) bool, argv ...string) string {
	m.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(300 * time.Millisecond) {
		stdout, stderr, code := m.Try(argv...)
		if code == 0 && want(stdout) {
			return stdout
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("not within %v: %s\n%s: exit code %d\n%s%s", limit, what, strings.Join(argv, " "), code, stdout, stderr)
		}
	}
}
