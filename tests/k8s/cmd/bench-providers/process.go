package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// ready bounds each start: fresh software TPMs of several nodes make their keys beside each other.
const ready = 60 * time.Second

// stage is what a run has started, and its folder.
type stage struct {
	dir      string
	bin      string
	commands []*exec.Cmd
}

// start runs a server until close. The kernel ends it when this program is killed: it is started from the main thread, which
// lives as long as the process.
func (s *stage) start(name string, cmd *exec.Cmd) error {
	log, err := os.Create(s.log(name))
	if err != nil {
		return err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.commands = append(s.commands, cmd)
	return nil
}

func (s *stage) log(name string) string { return filepath.Join(s.dir, name+".log") }

// close ends everything, the last first.
func (s *stage) close() {
	for i := len(s.commands) - 1; i >= 0; i-- {
		s.commands[i].Process.Signal(syscall.SIGTERM)
	}
	for _, cmd := range s.commands {
		late := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		late.Stop()
	}
	s.commands = nil
}

// until asks again and again until the answer is nil.
func until(what string, condition func() error) error {
	deadline := time.Now().Add(ready)
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v: %w", what, ready, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// freeAddress was free a moment ago.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
