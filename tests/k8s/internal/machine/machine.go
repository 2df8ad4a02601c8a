// Package machine runs virtual machines for the length of a test: QEMU without hardware support (so that it runs wherever the
// tests do), a TPM of software, a disk, and an agent inside that runs programs as root.
//
// A machine that is off keeps its disk and its TPM. PowerCut is what pulling the plug is: what the guest had not yet written to
// its disk is gone.
package machine

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/guest"
)

const (
	// bootTime bounds a boot: 30 s on a quiet machine with two cores, and these are shared.
	bootTime = 6 * time.Minute
	// offTime bounds a clean way down.
	offTime = 3 * time.Minute
)

// Parts is what machines are made of.
type Parts struct {
	Kernel, Initrd string
	Disk           string // raw ext4; changed by whoever boots from it
	Payload        string // raw ext4; read-only, at /mnt/payload in the guest
	Swap           string // raw, for the guest to make what it likes of
}

// secretMemory has Debian's kernel offer memfd_secret(2), which it has and does not.
const secretMemory = "secretmem.enable=1"

// Machine is a machine that may be on or off.
type Machine struct {
	// NoSecretMemory and AppArmor, which is there instead of SELinux, take effect when it is turned on.
	NoSecretMemory bool
	AppArmor       bool

	t     testing.TB
	dir   string
	parts Parts
	tpm   string
	boots int
	qemu  *exec.Cmd
	swtpm *exec.Cmd
	gone  chan struct{}
	agent *agent
}

// New gives a machine a folder of its own and a TPM that has never been used. It is off.
func New(t testing.TB, name string, parts Parts) *Machine {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m := &Machine{t: t, dir: dir, parts: parts}
	m.SwapTPM("tpm")
	t.Cleanup(m.PowerCut)
	return m
}

// For makes t the test that fails when the machine does. It outlives the subtests that use it.
func (m *Machine) For(t testing.TB) { m.t = t }

// SwapTPM puts the TPM of this name into the machine, a new one if there is none.
func (m *Machine) SwapTPM(name string) {
	m.t.Helper()
	m.tpm = filepath.Join(m.dir, name)
	if err := os.MkdirAll(m.tpm, 0o700); err != nil {
		m.t.Fatal(err)
	}
}

// Boot turns the machine on and waits for its agent. It answers how long that took.
func (m *Machine) Boot() time.Duration {
	m.t.Helper()
	started := time.Now()
	m.boots++
	m.startTPM()
	port := filepath.Join(m.dir, "agent.sock")
	os.Remove(port)
	words := "root=/dev/vda rw console=ttyS0 audit=1 panic=-1 quiet"
	if !m.NoSecretMemory {
		words += " " + secretMemory
	}
	if m.AppArmor {
		words += " security=apparmor apparmor=1"
	} else {
		words += " security=selinux selinux=1 enforcing=1"
	}
	m.qemu = exec.Command("qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.parts.Kernel, "-initrd", m.parts.Initrd,
		"-append", words,
		"-serial", "file:"+m.Console(),
		"-drive", "if=virtio,format=raw,cache=writeback,file="+m.parts.Disk,
		"-drive", "if=virtio,format=raw,readonly=on,file="+m.parts.Payload,
		"-drive", "if=virtio,format=raw,cache=writeback,file="+m.parts.Swap,
		"-device", "virtio-rng-pci",
		"-chardev", "socket,id=tpm,path="+m.tpmSocket(), "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,server=on,wait=off,path="+port,
		"-device", "virtserialport,chardev=agent,name="+guest.Port)
	m.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := os.Create(filepath.Join(m.dir, "qemu.log"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.qemu.Stdout, m.qemu.Stderr = said, said
	if err := m.qemu.Start(); err != nil {
		m.t.Fatal(err)
	}
	said.Close()
	m.gone = make(chan struct{})
	go func(qemu *exec.Cmd, gone chan struct{}) {
		qemu.Wait()
		close(gone)
	}(m.qemu, m.gone)

	connection := m.connect(port)
	m.agent = newAgent(connection)
	select {
	case <-m.agent.up:
	case <-m.gone:
		m.fatalf("QEMU ended while the machine booted")
	case <-time.After(bootTime):
		m.fatalf("no agent within %v", bootTime)
	}
	return time.Since(started)
}

func (m *Machine) connect(port string) net.Conn {
	m.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if connection, err := net.Dial("unix", port); err == nil {
			return connection
		}
	}
	m.fatalf("QEMU does not offer the port of the agent")
	return nil
}

func (m *Machine) tpmSocket() string { return filepath.Join(m.dir, "swtpm.sock") }

// startTPM gives power to the TPM. swtpm ends by itself when QEMU goes.
func (m *Machine) startTPM() {
	m.t.Helper()
	m.stopTPM()
	os.Remove(m.tpmSocket())
	m.swtpm = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+m.tpm, "--ctrl", "type=unixio,path="+m.tpmSocket(),
		"--terminate", "--log", "file="+filepath.Join(m.dir, "swtpm.log"))
	m.swtpm.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.swtpm.Start(); err != nil {
		m.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(m.tpmSocket()); err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.fatalf("swtpm does not start")
		}
	}
}

func (m *Machine) stopTPM() {
	if m.swtpm != nil {
		m.swtpm.Process.Kill()
		m.swtpm.Wait()
		m.swtpm = nil
	}
}

// PowerCut pulls the plug. Of a machine that is off it asks nothing.
func (m *Machine) PowerCut() {
	if m.qemu == nil {
		return
	}
	m.qemu.Process.Kill()
	m.off()
}

// Reboot asks the machine to go down in order, and turns it on again.
func (m *Machine) Reboot() time.Duration {
	m.t.Helper()
	m.Shutdown()
	return m.Boot()
}

// Shutdown asks the machine to go down in order.
func (m *Machine) Shutdown() {
	m.t.Helper()
	m.agent.order([]string{"systemctl", "poweroff"}, nil)
	select {
	case <-m.gone:
	case <-time.After(offTime):
		m.fatalf("the machine does not go down within %v", offTime)
	}
	m.off()
}

func (m *Machine) off() {
	<-m.gone
	m.agent.close()
	m.stopTPM()
	m.qemu = nil
}

// Console is the file with what the machine said on its serial line since it was last turned on.
func (m *Machine) Console() string {
	return filepath.Join(m.dir, fmt.Sprintf("console.%d.log", m.boots))
}

func (m *Machine) fatalf(format string, args ...any) {
	m.t.Helper()
	console, _ := os.ReadFile(m.Console())
	qemu, _ := os.ReadFile(filepath.Join(m.dir, "qemu.log"))
	m.t.Fatalf(format+"\nQEMU: %s\nconsole:\n%s", append(args, qemu, tail(console, 4000))...)
}

func tail(text []byte, limit int) []byte { return text[max(0, len(text)-limit):] }
