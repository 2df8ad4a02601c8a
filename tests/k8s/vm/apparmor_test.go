package vm

import (
	"strings"
	"testing"

	"nodeseal.internal/tests/k8s/internal/machine"
)

// TestAppArmor does what docs/operations/selinux.md says of AppArmor, on a machine that has it instead of SELinux.
func TestAppArmor(t *testing.T) {
	from := parts(t)
	n := &node{Machine: machine.New(t, "apparmor", from), t: t}
	n.AppArmor = true
	t.Logf("FIGURE: first boot %.0f s", n.Boot().Seconds())
	n.install()
	n.Sh("cp /usr/share/doc/nodeseal/examples/apparmor/usr.bin.* /etc/apparmor.d/")
	n.Run("apparmor_parser", "-r", "/etc/apparmor.d/usr.bin.nodeseald", "/etc/apparmor.d/usr.bin.nodeseal-sealer")
	n.Run("systemctl", "restart", "nodeseal-sealer.service", "nodeseal.service")
	n.awaitHealthy()
	n.assertEnforced()
	n.assertTextsOpen()
	n.Sh(rotate)
	n.keep(n.Run("/mnt/payload/texts", "-count", "20"))
	n.Run("systemctl", "reload", "nodeseal.service")
	n.Run("nodeseal", "reseal")
	n.Run("nodeseal", "status", "--probe")
	n.assertNothingRefused()

	t.Logf("FIGURE: boot %.0f s", n.Reboot().Seconds())
	n.awaitHealthy()
	n.assertEnforced()
	n.assertTextsOpen()
	n.assertNothingRefused()

	// Root under that profile reads what is nodeseald's and nothing else, and the search for refusals finds it.
	read := func(path string) int {
		_, _, code := n.Try("aa-exec", "-p", "nodeseald", "--", "cat", path)
		return code
	}
	if own, other := read(configPath), read("/etc/shadow"); own != 0 || other == 0 {
		t.Errorf("cat ends with %d for the configuration and with %d for a file of others", own, other)
	}
	if refused := n.refusals(); refused == "" {
		t.Errorf("it was not AppArmor that refused it: %s", refused)
	} else {
		t.Log(refused)
	}
}

func (n *node) assertEnforced() {
	n.t.Helper()
	// The sealer is there while it is asked; the question keeps it for this look.
	n.Run("nodeseal", "status", "--device")
	for unit, profile := range map[string]string{"nodeseal.service": "nodeseald", "nodeseal-sealer.service": "nodeseal-sealer"} {
		said := strings.TrimSpace(n.Run("cat", "/proc/"+n.property(unit, "MainPID")+"/attr/current"))
		if said != profile+" (enforce)" {
			n.t.Errorf("%s is %q", unit, said)
		}
		n.t.Logf("FIGURE: %s: %s", unit, said)
	}
}

func (n *node) assertNothingRefused() {
	n.t.Helper()
	if refused := n.refusals(); refused != "" {
		n.t.Errorf("AppArmor has denied:\n%s", refused)
	}
}

// refusals are those under either profile. `deny` rules are silent.
func (n *node) refusals() string {
	n.t.Helper()
	return n.audited(`apparmor="DENIED".* profile="nodeseal`)
}
