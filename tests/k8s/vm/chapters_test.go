package vm

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

func (n *node) install() {
	n.Sh("dpkg -i /mnt/payload/nodeseal.deb")
	for _, unit := range []string{"nodeseal-sealer.socket"} {
		if got := n.property(unit, "ActiveState"); got != "active" {
			n.t.Errorf("%s is %s after the installation", unit, got)
		}
	}
	n.Write(configPath, config)
	n.Run("nodeseal", "config", "check")
	var made struct {
		Code string `json:"recovery_code"`
	}
	n.parse(n.Run("nodeseal", "init", "--recovery-code", "--json"), &made)
	n.code = made.Code
	n.Run("systemctl", "start", "nodeseal.service")
	n.awaitHealthy()
	n.t.Log(n.Run("nodeseal", "status", "--probe"))
	n.keep(n.Run("/mnt/payload/texts", "-count", "20"))
	n.assertTextsOpen()
}

// confined reads what the kernel says of both daemons.
func (n *node) confined() {
	// The sealer is there while it is asked; the question keeps it for this look.
	n.Run("nodeseal", "status", "--device")
	for _, unit := range []struct{ name, domain, network string }{
		{"nodeseal.service", "nodeseal_t", "no"}, {"nodeseal-sealer.service", "nodeseal_sealer_t", "yes"},
	} {
		pid := n.property(unit.name, "MainPID")
		proc := n.Sh("cd /proc/" + pid + " && cat status && echo Domain: $(tr -d '\\0' <attr/current) && echo Net: $(readlink ns/net)")
		fields := map[string]string{}
		for line := range strings.Lines(proc) {
			if key, value, ok := strings.Cut(line, ":"); ok {
				fields[key] = strings.Join(strings.Fields(value), " ")
			}
		}
		for key, want := range map[string]string{
			"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000",
			"CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2", "Domain": "system_u:system_r:" + unit.domain + ":s0",
		} {
			if fields[key] != want {
				n.t.Errorf("%s: %s is %q, not %q", unit.name, key, fields[key], want)
			}
		}
		if strings.HasPrefix(fields["Uid"], "0 ") {
			n.t.Errorf("%s runs as root", unit.name)
		}
		own := strings.TrimSpace(n.Run("readlink", "/proc/self/ns/net"))
		if shares := fields["Net"] == own; shares != (unit.network == "no") {
			n.t.Errorf("%s: network %s, the machine's %s", unit.name, fields["Net"], own)
		}
		n.t.Logf("FIGURE: %s: uid %s, groups %q, seccomp filters %s, %s", unit.name, fields["Uid"], fields["Groups"], fields["Seccomp_filters"], fields["Domain"])
	}
	sandbox := n.status().Sandbox
	// Linux 6.1 has the files of Landlock, not yet ports and signals.
	if sandbox.UID == 0 || !sandbox.NoCapabilities || sandbox.Landlock == "none" || sandbox.LandlockABI < 2 || sandbox.Seccomp != "nodeseald" {
		n.t.Errorf("status says %+v", sandbox)
	}
	n.t.Logf("FIGURE: %+v", sandbox)
	for _, unit := range []string{"nodeseal.service", "nodeseal-sealer.service"} {
		n.t.Log(strings.TrimSpace(n.Sh("systemd-analyze security --no-pager " + unit + " | tail -1")))
	}
}

func (n *node) reboot() {
	took := n.Reboot()
	n.Until(soon, "the service is up by itself", func(state string) bool {
		return strings.TrimSpace(state) == "active"
	}, "systemctl", "show", "--value", "-p", "ActiveState", "nodeseal.service")
	// READY means: the keys are open. Nobody has sent a request until now.
	log := n.Run("journalctl", "-b", "-o", "cat", "-u", "nodeseal.service")
	if !strings.Contains(log, "Started nodeseal.service") {
		n.t.Errorf("systemd was not told:\n%s", log)
	}
	n.t.Logf("FIGURE: boot %.0f s, and of it: %s", took.Seconds(), strings.TrimSpace(n.Sh("systemd-analyze blame | grep nodeseal | tr '\\n' ' '")))
	n.assertTextsOpen()
}

func (n *node) underLoad() {
	sockets := []string{n.property("nodeseal.socket", "InvocationID"), n.property("nodeseal-sealer.socket", "InvocationID")}
	load := func(op string) *loadTask {
		return &loadTask{n, n.Start("/mnt/payload/kmsload", "-socket", "/run/nodeseal/kms.sock", "-op", op, "-duration", "45s", "-concurrency", "4")}
	}
	tasks := []*loadTask{load("encrypt"), load("decrypt"), load("status")}
	n.Run("systemctl", "reload", "nodeseal.service")
	before := n.status()
	n.Run("systemctl", "restart", "nodeseal.service")
	n.awaitHealthy()
	n.Run("systemctl", "restart", "nodeseal-sealer.service")
	n.Sh("dpkg -i /mnt/payload/newer.deb")
	n.awaitHealthy()
	after := n.status()
	if after.PID == before.PID {
		n.t.Errorf("still the process %d", after.PID)
	}
	for _, task := range tasks {
		task.assertNothingLost()
	}
	if now := []string{n.property("nodeseal.socket", "InvocationID"), n.property("nodeseal-sealer.socket", "InvocationID")}; fmt.Sprint(now) != fmt.Sprint(sockets) {
		n.t.Errorf("a socket was restarted")
	}
	n.assertTextsOpen()
}

func (n *node) watchdog() {
	pid := n.property("nodeseal.service", "MainPID")
	n.Run("kill", "-STOP", pid)
	n.Until(3*soon, "systemd starts another one", func(now string) bool {
		now = strings.TrimSpace(now)
		return now != pid && now != "0"
	}, "systemctl", "show", "--value", "-p", "MainPID", "nodeseal.service")
	n.awaitHealthy()
	if log := n.Run("journalctl", "-b", "-o", "cat", "-u", "nodeseal.service"); !strings.Contains(log, "Watchdog timeout") {
		n.t.Errorf("it was not the watchdog:\n%s", log)
	}
	n.assertTextsOpen()
}

func (n *node) crash() {
	n.Sh("echo '/var/crash.%e' >/proc/sys/kernel/core_pattern")
	n.Run("kill", "-ABRT", n.property("nodeseal.service", "MainPID"))
	n.awaitHealthy()
	// A process that allows it leaves one.
	n.Try("sh", "-c", "ulimit -c unlimited; kill -ABRT $$")
	if cores := strings.Fields(n.Sh("ls /var | grep crash || true")); len(cores) != 1 || cores[0] != "crash.sh" {
		n.t.Errorf("there are these cores: %q", cores)
	}
	n.assertTextsOpen()
}

// rotate makes a new KEK and writes with it, in sh(1).
const rotate = `id=$(nodeseal keys rotate --json | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/') && nodeseal keys activate "$id" >/dev/null`

// cutDuringWrites has one text after the other acknowledged, keys rotated as fast as they can be, and the plug pulled.
func (n *node) cutDuringWrites() {
	for range 3 {
		texts := n.Start("/mnt/payload/texts", "-every", "5ms")
		n.Start("sh", "-c", "while true; do "+rotate+"; done")
		n.pull(func() bool { return strings.Count(texts.Stdout(), "\n") >= 40 })
		acknowledged := texts.Stdout()
		n.keep(acknowledged)
		n.Boot()
		n.awaitHealthy()
		n.t.Logf("FIGURE: power cut after %d more texts, %s", strings.Count(acknowledged, "\n"), n.keys())
		n.assertTextsOpen()
	}
}

func (n *node) cutDuringReseal() {
	for range 2 {
		reseals := n.Start("sh", "-c", "while nodeseal reseal >/dev/null; do echo once; done")
		n.pull(func() bool { return strings.Count(reseals.Stdout(), "\n") >= 2 })
		n.Boot()
		n.awaitHealthy()
		n.t.Logf("FIGURE: power cut after %d reseals", strings.Count(reseals.Stdout(), "\n"))
		n.assertTextsOpen()
	}
}

// pull pulls the plug at any moment of the second after enough has happened.
func (n *node) pull(enough func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(soon); !enough(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("too little happens to cut the power into")
		}
	}
	time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
	n.PowerCut()
}

func (n *node) keys() string {
	return fmt.Sprintf("%d KEKs", strings.Count(n.Run("nodeseal", "keys", "list", "--json"), `"state"`))
}

func (n *node) otherTPM() {
	fingerprint := func() string {
		return n.Sh("cd /var/lib/nodeseal && find . -type f ! -name lock | sort | xargs sha256sum")
	}
	// Its stop gives back what it had reserved.
	n.Run("systemctl", "stop", "nodeseal.socket", "nodeseal.service")
	before := fingerprint()
	n.Shutdown()
	n.SwapTPM("other")
	n.Boot()
	n.awaitRefusal("E-SRK-MISSING", "nodeseal recover")
	if after := fingerprint(); after != before {
		n.t.Errorf("the state directory has changed:\n%s\n%s", before, after)
	}
	n.assertNoDenial()
	n.Shutdown()
	n.SwapTPM("tpm")
	n.Boot()
	n.awaitHealthy()
	n.assertTextsOpen()
}

// awaitRefusal waits for this fault and its remedy in the log. The service goes on trying, and answers that it is not well.
func (n *node) awaitRefusal(fault, remedy string) {
	n.t.Helper()
	log := n.Until(soon, "the fault "+fault+" in the log", func(log string) bool { return strings.Contains(log, fault) },
		"journalctl", "-b", "-o", "cat", "-u", "nodeseal.service", "-u", "nodeseal-sealer.service")
	line := ""
	for text := range strings.Lines(log) {
		if strings.Contains(text, fault) {
			line = text
		}
	}
	if !strings.Contains(log, remedy) {
		n.t.Errorf("nobody is told %q:\n%s", remedy, log)
	}
	n.t.Log(strings.TrimSpace(line))
	if said, _, code := n.Try("nodeseal", "status", "--json"); code != 69 || !strings.Contains(said, `"healthy":false`) {
		n.t.Errorf("status: exit code %d: %s", code, said)
	}
	if _, _, code := n.Try("/mnt/payload/texts", "-count", "1"); code == 0 {
		n.t.Errorf("it encrypts")
	}
}

func (n *node) changedPCR() {
	// Of those that firmware measures into, one that holds something here.
	n.Write(configPath, config+"policy = \"pcr\"\npcr_bank = \"sha256\"\npcrs = [7]\n")
	n.Run("systemctl", "restart", "nodeseal-sealer.service", "nodeseal.service")
	n.awaitHealthy()
	n.Run("nodeseal", "reseal")
	n.Run("systemctl", "restart", "nodeseal.service")
	n.awaitHealthy()
	n.Run("tpm2_pcrextend", "7:sha256="+strings.Repeat("ab", 32))
	n.Run("systemctl", "restart", "--no-block", "nodeseal.service")
	n.awaitRefusal("E-POLICY", "undo the change")
	n.Reboot()
	n.awaitHealthy()
	n.assertTextsOpen()
	n.Write(configPath, config)
	n.Run("systemctl", "restart", "nodeseal-sealer.service", "nodeseal.service")
	n.awaitHealthy()
	n.Run("nodeseal", "reseal")
}

func (n *node) clearedTPM() {
	n.Run("tpm2_clear")
	n.Run("systemctl", "restart", "--no-block", "nodeseal.service")
	n.awaitRefusal("E-SRK-MISSING", "nodeseal recover")
	n.Write("/run/code", n.code)
	n.t.Log(n.Sh("nodeseal recover </run/code && rm /run/code"))
	n.awaitHealthy()
	n.assertTextsOpen()
}

func (n *node) remove() {
	said := n.Sh("dpkg -r nodeseal 2>&1")
	if !strings.Contains(said, "/var/lib/nodeseal") {
		n.t.Errorf("it does not say where the keys are:\n%s", said)
	}
	n.Sh("dpkg --purge nodeseal && test -e /var/lib/nodeseal/current")
	n.Sh("dpkg -i /mnt/payload/nodeseal.deb")
	n.Write(configPath, config)
	n.Run("systemctl", "restart", "nodeseal.service")
	n.awaitHealthy()
	n.assertTextsOpen()
}
