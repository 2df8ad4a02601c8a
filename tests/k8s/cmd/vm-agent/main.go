// Command vm-agent runs inside a test's virtual machine and does what the test asks for: it starts programs as root and
// passes on what they print while they print it.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"nodeseal.internal/tests/k8s/internal/guest"
)

func main() {
	if err := run("/dev/virtio-ports/" + guest.Port); err != nil {
		fmt.Fprintln(os.Stderr, "vm-agent:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	port, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var lock sync.Mutex
	tell := func(event guest.Event) {
		line, _ := json.Marshal(event)
		lock.Lock()
		defer lock.Unlock()
		port.Write(append(line, '\n'))
	}
	tell(guest.Event{Done: true})
	orders := bufio.NewReaderSize(port, 1<<20)
	for {
		line, err := orders.ReadBytes('\n')
		if err != nil {
			return err
		}
		var order guest.Order
		if err := json.Unmarshal(line, &order); err != nil || len(order.Argv) == 0 {
			return fmt.Errorf("order %q: %v", line, err)
		}
		go obey(order, tell)
	}
}

func obey(order guest.Order, tell func(guest.Event)) {
	command := exec.Command(order.Argv[0], order.Argv[1:]...)
	command.Stdin = bytes.NewReader(order.Stdin)
	command.Stdout = writer(func(data []byte) { tell(guest.Event{ID: order.ID, Stdout: data}) })
	command.Stderr = writer(func(data []byte) { tell(guest.Event{ID: order.ID, Stderr: data}) })
	command.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive")
	err := command.Run()
	code := 0
	switch state := command.ProcessState; {
	case state == nil:
		tell(guest.Event{ID: order.ID, Stderr: []byte(err.Error())})
		code = 127
	case state.Sys().(syscall.WaitStatus).Signaled():
		code = 128 + int(state.Sys().(syscall.WaitStatus).Signal())
	default:
		code = state.ExitCode()
	}
	tell(guest.Event{ID: order.ID, Done: true, Code: code})
}

type writer func([]byte)

var _ io.Writer = writer(nil)

func (w writer) Write(data []byte) (int, error) {
	w(data)
	return len(data), nil
}
