package vm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// stranger is a domain of Debian's policy that has nothing to do with Nodeseal, and is confined.
const stranger = "httpd_t"

func (n *node) others() {
	_, said, code := n.Try("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/mnt/payload/texts", "-count", "1")
	if code == 0 || !strings.Contains(said, "permission denied") {
		n.t.Errorf("nobody was not refused: %d %s", code, said)
	}
	for _, path := range []string{"/var/lib/nodeseal", "/run/nodeseal-sealer/sealer.sock"} {
		if mode := strings.TrimSpace(n.Run("stat", "-c", "%a %U", path)); !strings.HasSuffix(mode, "00 nodeseal") {
			n.t.Errorf("%s: %s", path, mode)
		}
	}
}

// otherDomain runs the same program as root twice: as what root's own services are, and as a web server.
func (n *node) otherDomain() {
	const program = "/usr/local/sbin/client"
	n.Write("/run/systemd/system/client.service", "[Service]\nType=oneshot\nStandardOutput=null\nExecStart="+program+" -count 1\n")
	n.Run("systemctl", "daemon-reload")
	ask := func(label string) (int, string) {
		n.Sh("cp /mnt/payload/texts " + program + " && chcon -t " + label + " " + program)
		_, _, code := n.Try("systemctl", "start", "client.service")
		return code, n.Run("journalctl", "-b", "-o", "cat", "-u", "client.service")
	}
	if code, said := ask("bin_t"); code != 0 {
		n.t.Errorf("a service of root's is refused: %d %s", code, said)
	}
	if code, said := ask("httpd_exec_t"); code == 0 {
		n.t.Errorf("%s encrypts: %s", stranger, said)
	}
	denied := n.denials()
	if !strings.Contains(denied, ":"+stranger+":") {
		n.t.Errorf("it was not SELinux that refused it:\n%s", denied)
	}
	n.t.Log(strings.TrimSpace(denied))
}

// swapped has the kernel push out of nodeseald's memory what it can, while keys are in use, and reads what came to the device.
func (n *node) swapped() {
	const group = "/sys/fs/cgroup/system.slice/nodeseal.service/"
	n.Shutdown()
	n.NoSecretMemory = true
	n.Boot()
	n.awaitHealthy()
	if memory := n.status().Sandbox.Memory; memory != "locked" {
		n.t.Errorf("keys are in %s memory", memory)
	}
	n.Sh("mkswap /dev/vdc && swapon /dev/vdc && sysctl -qw vm.swappiness=200")
	// It gives back what it can, and then says that it was less.
	push := func() string {
		return strings.TrimSpace(n.Sh("echo 256M >" + group + "memory.reclaim 2>/dev/null || true; cat " + group + "memory.swap.current"))
	}
	if used := push(); used != "0" {
		n.t.Errorf("the unit forbids swap, and there are %s bytes", used)
	}
	n.Run("systemctl", "set-property", "--runtime", "nodeseal.service", "MemorySwapMax=infinity")
	for range 3 {
		push()
		n.assertTextsOpen()
		n.Sh(rotate + " && /mnt/payload/texts -count 20 >/dev/null")
	}
	used := push()
	needles := n.recoveredKeys()
	needles["control"] = []byte(n.status().KeyID)
	n.Shutdown()
	device, err := os.ReadFile(n.swap)
	if err != nil {
		n.t.Fatal(err)
	}
	for name, needle := range needles {
		if found := bytes.Contains(device, needle); found != (name == "control") {
			n.t.Errorf("%s: on the swap device is %v", name, found)
		}
	}
	n.t.Logf("FIGURE: %s bytes of nodeseald on the swap device, and %d halves of keys not", used, len(needles)-1)
	n.NoSecretMemory = false
	n.Boot()
	n.awaitHealthy()
}

// recoveredKeys are both halves of each KEK, as the recovery file has them (docs/formats.md, "Recovery file", "Keyring export").
func (n *node) recoveredKeys() map[string][]byte {
	const container, trailer, id, key = 15, 32, 16, 32
	// No copies of providers on this node; who has made the file, and a signature.
	const copies, maker, signature = 2, 32, 64
	file := n.Run("cat", "/var/lib/nodeseal/recovery.age")
	identity := filepath.Join(n.t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte(strings.ReplaceAll(n.code, " ", "")+"\n"), 0o600); err != nil {
		n.t.Fatal(err)
	}
	age := exec.Command("age", "-d", "-i", identity)
	age.Stdin = strings.NewReader(file[container : len(file)-trailer])
	age.Stderr = os.Stderr
	export, err := age.Output()
	if err != nil {
		n.t.Fatalf("age: %v", err)
	}
	// Behind the keys, which come after their count.
	tail := export[len(export)-copies-maker-signature:]
	if version := binary.BigEndian.Uint16(export[8:]); version != 2 || binary.BigEndian.Uint16(tail) != 0 {
		n.t.Fatalf("an export of version %d with copies %x", version, tail[:copies])
	}
	export = export[:len(export)-len(tail)]
	keys := 1
	for ; int(binary.BigEndian.Uint16(export[len(export)-keys*(id+key)-2:])) != keys; keys++ {
	}
	halves := map[string][]byte{}
	for entry := range slices.Chunk(export[len(export)-keys*(id+key):], id+key) {
		name := fmt.Sprintf("KEK %x", entry[:id])
		halves[name+", front"], halves[name+", back"] = entry[id:id+key/2], entry[id+key/2:]
	}
	return halves
}
