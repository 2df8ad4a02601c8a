// Package vm takes Nodeseal's Debian package through the life of a machine: systemd as PID 1, SELinux enforcing, a TPM behind
// /dev/tpmrm0, reboots, cut power and exchanged parts. It needs root, and minutes: `make vm-test` runs it.
package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/machine"
)

const (
	config = `version = 1
cluster = "machine"
[seal]
socket = "/run/nodeseal-sealer/sealer.sock"
[seal.tpm2]
# swtpm says what it is.
allow_software_tpm = true
`
	configPath = "/etc/nodeseal/nodeseal.toml"
	// soon bounds what a quiet machine of iron does in a second or two. Here is emulation, on shared cores.
	soon = 2 * time.Minute
)

// node is the machine with Nodeseal on it, and every text that it has acknowledged.
type node struct {
	*machine.Machine
	t     *testing.T
	swap  string // the file behind the machine's second disk
	code  string // of recovery
	texts strings.Builder
}

// TestMachine is one life, in order. What one chapter leaves behind is where the next one begins.
func TestMachine(t *testing.T) {
	from := parts(t)
	n := &node{Machine: machine.New(t, "machine", from), t: t, swap: from.Swap}
	t.Logf("FIGURE: first boot %.0f s", n.Boot().Seconds())
	chapters := []struct {
		name string
		run  func(*node)
	}{
		{"the package is installed and the node set up", (*node).install},
		{"both daemons are confined as they should be", (*node).confined},
		{"another user is refused", (*node).others},
		{"a client in another domain of SELinux is refused", (*node).otherDomain},
		{"a reboot unseals before anybody asks", (*node).reboot},
		{"reload, restart and upgrade under load lose no request", (*node).underLoad},
		{"a process that stands still is ended by the watchdog", (*node).watchdog},
		{"a crash leaves no core", (*node).crash},
		{"no key reaches a swap device, on a kernel without secret pages", (*node).swapped},
		{"cut power during writes and rotations loses nothing", (*node).cutDuringWrites},
		{"cut power during reseal loses nothing", (*node).cutDuringReseal},
		{"another TPM is refused with the remedy, and the own one opens again", (*node).otherTPM},
		{"a changed PCR is refused until a reboot undoes it", (*node).changedPCR},
		{"after the TPM was cleared the recovery code brings all back", (*node).clearedTPM},
		{"removing the package keeps the keys", (*node).remove},
	}
	for _, chapter := range chapters {
		began := time.Now()
		ok := t.Run(chapter.name, func(t *testing.T) {
			n.t = t
			n.Machine.For(t)
			chapter.run(n)
			n.assertNoDenial()
		})
		n.t = t
		n.Machine.For(t)
		t.Logf("FIGURE: %s: %.0f s", chapter.name, time.Since(began).Seconds())
		if !ok {
			n.report()
			return
		}
	}
}

// parts makes disk and payload anew: the base system, and beside it the package twice, the second time with a higher version.
func parts(t *testing.T) machine.Parts {
	t.Helper()
	deb := os.Getenv("NODESEAL_DEB")
	if deb == "" {
		t.Skip("NODESEAL_DEB names no package: `make vm-test` builds one")
	}
	dir := t.TempDir()
	base := strings.TrimSpace(host(t, "./base.sh", filepath.Join(os.Getenv("NODESEAL_CACHE"), "vm")))
	payload := filepath.Join(dir, "payload")
	for _, program := range []string{"vm-agent", "kmsload", "texts"} {
		host(t, "go", "build", "-o", payload+"/", "../cmd/"+program)
	}
	host(t, "cp", deb, filepath.Join(payload, "nodeseal.deb"))
	tree := filepath.Join(dir, "newer")
	host(t, "dpkg-deb", "-R", deb, tree)
	host(t, "sed", "-i", `s/^Version: \(.*\)/Version: \1+newer/`, filepath.Join(tree, "DEBIAN/control"))
	host(t, "dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, filepath.Join(payload, "newer.deb"))
	p := machine.Parts{
		Kernel: filepath.Join(base, "vmlinuz"), Initrd: filepath.Join(base, "initrd.img"),
		Disk: filepath.Join(dir, "disk.img"), Payload: filepath.Join(dir, "payload.img"),
		Swap: filepath.Join(dir, "swap.img"),
	}
	host(t, "truncate", "-s", "256M", p.Swap)
	host(t, "./image.sh", base, filepath.Join(payload, "vm-agent"), p.Disk)
	host(t, "mkfs.ext4", "-q", "-d", payload, p.Payload, "256M")
	return p
}

func host(t *testing.T, argv ...string) string {
	t.Helper()
	command := exec.Command(argv[0], argv[1:]...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// report prints what a person would look at first.
func (n *node) report() {
	for _, script := range []string{
		"systemctl status --no-pager -l nodeseal.service nodeseal-sealer.service nodeseal.socket nodeseal-sealer.socket",
		"journalctl --no-pager -b -u nodeseal.service -u nodeseal-sealer.service -n 60 -o cat",
		"ausearch --input-logs -m AVC,USER_AVC,SELINUX_ERR -i | tail -40",
	} {
		out, said, _ := n.Try("sh", "-c", script)
		n.t.Logf("%s\n%s%s", script, out, said)
	}
}

// status is `nodeseal status --json`, as far as it is asked for here.
type status struct {
	Healthy bool   `json:"healthy"`
	KeyID   string `json:"key_id"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	Sandbox struct {
		UID            int    `json:"uid"`
		NoCapabilities bool   `json:"no_capabilities"`
		Landlock       string `json:"landlock"`
		LandlockABI    int    `json:"landlock_abi"`
		Seccomp        string `json:"seccomp"`
		Memory         string `json:"memory"`
	} `json:"sandbox"`
}

func (n *node) status() status {
	n.t.Helper()
	var s status
	n.parse(n.Run("nodeseal", "status", "--json"), &s)
	return s
}

func (n *node) parse(text string, into any) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		n.t.Fatalf("%v in %q", err, text)
	}
}

// awaitHealthy asks the control socket alone: nothing is encrypted or decrypted.
func (n *node) awaitHealthy() {
	n.t.Helper()
	n.Until(soon, "nodeseald is well", func(out string) bool {
		return strings.Contains(out, `"healthy":true`)
	}, "nodeseal", "status", "--json")
}

// property is one of systemd's of a unit.
func (n *node) property(unit, name string) string {
	n.t.Helper()
	return strings.TrimSpace(n.Run("systemctl", "show", "--value", "-p", name, unit))
}

// write keeps the texts that a task or a call has printed.
func (n *node) keep(lines string) { n.texts.WriteString(lines[:strings.LastIndexByte(lines, '\n')+1]) }

// assertTextsOpen decrypts every text that was ever acknowledged.
func (n *node) assertTextsOpen() {
	n.t.Helper()
	n.Write("/run/texts", n.texts.String())
	opened := strings.TrimSpace(n.Sh("/mnt/payload/texts -read </run/texts"))
	if want := strings.Count(n.texts.String(), "\n"); opened != fmt.Sprint(want) {
		n.t.Fatalf("%s of %d texts open", opened, want)
	}
	n.t.Logf("FIGURE: %s texts open", opened)
}

// assertNoDenial asks the logs for what SELinux has ever denied to or around us, but for the one chapter that wants it.
func (n *node) assertNoDenial() {
	n.t.Helper()
	if got := strings.TrimSpace(n.Run("getenforce")); got != "Enforcing" {
		n.t.Errorf("SELinux is %s", got)
	}
	var denied []string
	for line := range strings.Lines(n.denials()) {
		if !strings.Contains(line, ":"+stranger+":") {
			denied = append(denied, line)
		}
	}
	if len(denied) > 0 {
		n.t.Errorf("SELinux has denied:\n%s", strings.Join(denied, ""))
	}
}

// denials are what SELinux has said that names anything of ours.
func (n *node) denials() string {
	n.t.Helper()
	return n.audited("(avc: |op=security).*nodeseal")
}

// audited are the lines with this, a regular expression, in the log of the audit daemon and in the kernel's own, which has what came
// before that daemon. ausearch would leave out an event that it takes for unfinished.
func (n *node) audited(what string) string {
	n.t.Helper()
	said, _, _ := n.Try("sh", "-c", `{ cat /var/log/audit/audit.log*; journalctl -k -o cat; } | grep -aE "$0"`, what)
	return said
}
