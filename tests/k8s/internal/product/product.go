// Package product runs Nodeseal itself for the length of a test, as `nodeseal dev` does: with a software TPM, or a token of
// software where NODESEAL_BACKEND says pkcs11, supervised, everything in one private folder.
package product

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/process"
)

// ready bounds a start with a fresh software TPM: making its certificates and its first key is what takes the time.
const ready = 60 * time.Second

// Plugin is a running `nodeseal dev`.
type Plugin struct {
	Dir    string
	Socket string
	Config string

	t     testing.TB
	setup Setup
	dev   *process.Process
}

// Setup is what a node has beside its own hardware.
type Setup struct {
	Fragment    string            // laid over the generated configuration, TOML
	Credentials map[string][]byte // to be sealed while it starts for the first time, by name
	Token       string            // folder of a token that it shares with other nodes, as `nodeseal dev` keeps one
}

// event is the line that `nodeseal dev --json` prints.
type event struct {
	Event  string `json:"event"`
	Socket string `json:"socket"`
	Config string `json:"config"`
}

// Start makes a node of its own and waits until it answers.
func Start(t testing.TB) *Plugin {
	t.Helper()
	return StartWith(t, Setup{})
}

// StartWith makes a node with providers, gives it their credentials, and waits until its key_id names the keys of all of them and
// each has a copy of its KEK.
func StartWith(t testing.TB, setup Setup) *Plugin {
	t.Helper()
	p := &Plugin{Dir: filepath.Join(process.Dir(t), "n"), t: t, setup: setup}
	p.Config = filepath.Join(p.Dir, "nodeseal.toml")
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(p.Dir, "log", "nodeseald.log"))
			lines := strings.SplitAfter(string(text), "\n")
			t.Logf("end of the log of nodeseald:\n%s", strings.Join(lines[max(0, len(lines)-60):], ""))
		}
	})
	if setup.Token != "" {
		if err := os.Mkdir(p.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(setup.Token, filepath.Join(p.Dir, "token")); err != nil {
			t.Fatal(err)
		}
	}
	p.start(p.sealCredentials)
	p.Settled()
	return p
}

// sealCredentials seals them as soon as there is a node root.
func (p *Plugin) sealCredentials() {
	p.t.Helper()
	for name, secret := range p.setup.Credentials {
		err := process.Until(ready, 50*time.Millisecond, func() error {
			select {
			case <-p.dev.Done():
				p.t.Fatal("`nodeseal dev` ended before a credential was sealed")
			default:
			}
			if _, err := os.Stat(filepath.Join(p.Dir, "state", "current")); err != nil {
				return err
			}
			_, err := p.output(secret, "credentials", "seal", name)
			return err
		})
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

// Settled waits until nothing is owed and nothing is waited for.
func (p *Plugin) Settled() Status {
	p.t.Helper()
	var s Status
	err := process.Until(90*time.Second, 100*time.Millisecond, func() error {
		s = Status{}
		if err := p.try(&s, "status"); err != nil {
			return err
		}
		if !s.Healthy || s.Waits != nil || s.WrapsOwed > 0 {
			return fmt.Errorf("status says %+v", s)
		}
		return nil
	})
	if err != nil {
		p.t.Fatalf("the node does not settle: %v", err)
	}
	return s
}

// Start starts the node again, after Stop, on what it left behind.
func (p *Plugin) Start() {
	p.t.Helper()
	p.start(func() {})
}

// start starts the node and waits until it answers; meanwhile it is given what it waits for.
func (p *Plugin) start(give func()) {
	p.t.Helper()
	output, input, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	arguments := []string{"dev", "--dir", p.Dir, "--json", "--backend", backend()}
	if p.setup.Fragment != "" {
		fragment := filepath.Join(filepath.Dir(p.Dir), "fragment.toml")
		if err := os.WriteFile(fragment, []byte(p.setup.Fragment), 0o600); err != nil {
			p.t.Fatal(err)
		}
		arguments = append(arguments, "--config", fragment)
	}
	cmd := exec.Command(process.Binary(p.t, "NODESEAL_BIN", "nodeseal"), arguments...)
	cmd.Stdout = input
	p.dev = process.Start(p.t, filepath.Dir(p.Dir), "nodeseal-dev", cmd)
	input.Close()

	line := make(chan event, 1)
	go func() {
		// The pipe is read to its end: a writer must never find it full or closed.
		defer output.Close()
		for lines := bufio.NewScanner(output); lines.Scan(); {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) == nil && e.Event == "ready" {
				line <- e
				break
			}
		}
		io.Copy(io.Discard, output)
	}()
	give()
	select {
	case e := <-line:
		p.Socket, p.Config = e.Socket, e.Config
	case <-p.dev.Done():
		p.t.Fatal("`nodeseal dev` ended before it was ready")
	case <-time.After(ready):
		p.t.Fatalf("`nodeseal dev` is not ready after %v", ready)
	}
}

func backend() string {
	if name := os.Getenv("NODESEAL_BACKEND"); name != "" {
		return name
	}
	return "tpm2"
}

// Stop ends the node in good order. What it keeps on disk stays.
func (p *Plugin) Stop() { p.dev.Stop() }

// Kill ends nodeseald as a crash would and returns the process id it had. `nodeseal dev` starts it again.
func (p *Plugin) Kill() int {
	p.t.Helper()
	pid := p.Status().PID
	if pid <= 1 {
		p.t.Fatalf("`nodeseal status` gives %d as the process id of nodeseald", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		p.t.Fatalf("kill -9 of nodeseald: %v", err)
	}
	return pid
}

// Revived waits until another nodeseald than pid is healthy, and returns how long that took.
func (p *Plugin) Revived(pid int) time.Duration {
	p.t.Helper()
	start := time.Now()
	err := process.Until(20*time.Second, 50*time.Millisecond, func() error {
		var s Status
		if err := p.try(&s, "status"); err != nil {
			return err
		}
		if s.PID == pid || !s.Healthy {
			return fmt.Errorf("status says process %d, healthy %t", s.PID, s.Healthy)
		}
		return nil
	})
	if err != nil {
		p.t.Fatalf("nodeseald did not come back: %v", err)
	}
	return time.Since(start)
}

// Status is what these tests read from `nodeseal status --json`.
type Status struct {
	PID       int     `json:"pid"`
	KeyID     string  `json:"key_id"`
	Healthy   bool    `json:"healthy"`
	Mode      string  `json:"mode"`
	Waits     *string `json:"waits"`
	WrapsOwed int     `json:"wraps_owed"`
	// ShortTexts is how many texts were given out without all copies of their KEK.
	ShortTexts int `json:"texts_short_of_wraps"`
}

// Status asks nodeseald how it is.
func (p *Plugin) Status() Status {
	p.t.Helper()
	var s Status
	p.run(&s, "status")
	return s
}

// Key is what these tests read from `nodeseal keys list --json`.
type Key struct {
	ID    string `json:"id"`
	State string `json:"state"`
	KeyID string `json:"key_id"`
}

// Keys returns all keys that the node has, those of other nodes among them.
func (p *Plugin) Keys() []Key {
	p.t.Helper()
	var list struct {
		Keys []Key `json:"keys"`
	}
	p.run(&list, "keys", "list")
	return list.Keys
}

// Active returns the one key that encrypts.
func (p *Plugin) Active() Key {
	p.t.Helper()
	list := p.Keys()
	var active []Key
	for _, key := range list {
		if key.State == "active" {
			active = append(active, key)
		}
	}
	if len(active) != 1 {
		p.t.Fatalf("%d keys are active, want exactly one: %+v", len(active), list)
	}
	return active[0]
}

// Rotate makes a new key and turns to it, which moves the key_id. It returns the one before and after.
func (p *Plugin) Rotate() (before, after string) {
	p.t.Helper()
	before, after = p.Renew()
	if after == before || after == "" {
		p.t.Fatalf("key_id is %q after activation and was %q before", after, before)
	}
	return before, after
}

// Renew makes a new key and turns to it. With providers the key_id names their keys and not this one. It returns the key_id before
// and after.
func (p *Plugin) Renew() (before, after string) {
	p.t.Helper()
	before = p.Status().KeyID
	var made struct {
		Key Key `json:"key"`
	}
	p.run(&made, "keys", "rotate")
	if made.Key.ID == "" || made.Key.State != "pre-activation" {
		p.t.Fatalf("`keys rotate` made %+v, want a key in pre-activation", made.Key)
	}
	if now := p.Status().KeyID; now != before {
		p.t.Fatalf("`keys rotate` alone moved key_id from %q to %q; only activation may", before, now)
	}
	// A provider that is slow just now still owes its copy, and one that is required must have made it.
	err := process.Until(60*time.Second, 250*time.Millisecond, func() error {
		return p.try(nil, "keys", "activate", made.Key.ID)
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return before, p.Status().KeyID
}

// Reconfigure replaces a line of the configuration, now and for later starts, and lets nodeseald read it anew; arguments go behind
// the verb.
func (p *Plugin) Reconfigure(before, after string, arguments ...string) {
	p.t.Helper()
	if err := p.TryReconfigure(before, after, arguments...); err != nil {
		p.t.Fatal(err)
	}
}

// TryReconfigure does the same where nodeseald may refuse it, and leaves the configuration as it was then.
func (p *Plugin) TryReconfigure(before, after string, arguments ...string) error {
	p.t.Helper()
	text, err := os.ReadFile(p.Config)
	if err != nil {
		p.t.Fatal(err)
	}
	if !strings.Contains(string(text), before) || !strings.Contains(p.setup.Fragment, before) {
		p.t.Fatalf("%q is not in the configuration", before)
	}
	p.replace([]byte(strings.Replace(string(text), before, after, 1)))
	if err := p.try(nil, append([]string{"reload"}, arguments...)...); err != nil {
		p.replace(text)
		return err
	}
	p.setup.Fragment = strings.Replace(p.setup.Fragment, before, after, 1)
	return nil
}

// replace puts another configuration in place at once.
func (p *Plugin) replace(text []byte) {
	p.t.Helper()
	changed := p.Config + ".new"
	if err := os.WriteFile(changed, text, 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(changed, p.Config); err != nil {
		p.t.Fatal(err)
	}
}

// EncryptionConfiguration returns what the tool prints for the API server; arguments go behind the verb.
func (p *Plugin) EncryptionConfiguration(arguments ...string) []byte {
	p.t.Helper()
	out, err := p.output(nil, append([]string{"encryption-config"}, arguments...)...)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *Plugin) run(result any, verb ...string) {
	p.t.Helper()
	if err := p.try(result, verb...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *Plugin) try(result any, verb ...string) error {
	out, err := p.output(nil, append(verb, "--json")...)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(out, result); err != nil {
		return fmt.Errorf("`nodeseal %v --json` printed no JSON: %w\n%s", verb, err, out)
	}
	return nil
}

// output runs a verb with that on its standard input.
func (p *Plugin) output(input []byte, verb ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, process.Binary(p.t, "NODESEAL_BIN", "nodeseal"), append(verb, "--config", p.Config)...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		return nil, fmt.Errorf("`nodeseal %v`: %w\n%s", verb, err, exit.Stderr)
	}
	return out, err
}
