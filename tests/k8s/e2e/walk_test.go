package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
	"nodeseal.internal/tests/k8s/internal/provider"
)

// way is one from a KMS to another, as `nodeseal migrate plan` shows it.
type way struct {
	*world
	arguments []string
}

// newWay has the arguments of `migrate plan` for this world, and those that name the way.
func newWay(t *testing.T, w *world, encryption []byte, route ...string) *way {
	t.Helper()
	file := filepath.Join(process.Dir(t), "encryption.yaml")
	if err := os.WriteFile(file, encryption, 0o600); err != nil {
		t.Fatal(err)
	}
	cluster := []string{"--kubeconfig", w.server.Kubeconfig("tester"), "--encryption-config", file, "--api-servers", w.server.URL()}
	return &way{world: w, arguments: append(cluster, route...)}
}

// leadsTo waits until this step is next; without a name until all are done.
func (y *way) leadsTo(t *testing.T, step string) {
	t.Helper()
	err := process.Until(90*time.Second, 250*time.Millisecond, func() error {
		walk, code := y.plugin.Walk(y.arguments...)
		if walk.Next() != step || walk.Complete != (step == "") || (code == 0) != walk.Complete {
			return fmt.Errorf("exit code %d: %s", code, walk.Text)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("the next step is not %q: %v", step, err)
	}
}

// migrates writes all that is stored, and scans.
func (y *way) migrates(t *testing.T) {
	t.Helper()
	cluster := y.arguments[:6]
	run, code := y.plugin.Migrate(append([]string{"run", "--rewrite", "--rate", "1000", "--wait", "1"}, cluster...)...)
	if code != 0 || !run.Complete {
		t.Fatalf("exit code %d: %s", code, run.Text)
	}
	y.scans()
}

func (y *way) scans() product.Scan {
	scan, _ := y.plugin.Scan("--endpoints", y.etcd.URL, "--encryption-config", y.arguments[3])
	return scan
}

// TestPlanWalksFromOneProviderToAnother takes each step that the plan calls next, on a running cluster. Eight minutes have to pass before
// a scan proves anything: the steps that wait for it are seen to wait, and then taken without proof.
func TestPlanWalksFromOneProviderToAnother(t *testing.T) {
	t.Parallel()
	attic, hall := provider.Plugin(t, "attic"), provider.Plugin(t, "hall")
	w := begin(t, kmsV2, attic)
	l := newLedger()
	l.writeMany(t, w.server, "walked", 40)
	y := newWay(t, w, w.plugin.EncryptionConfiguration(), "--from", "attic", "--to", "hall")

	y.leadsTo(t, "add")
	w.plugin.Reconfigure("[write]\n", hall.Table("write = false")+"[write]\n")
	y.leadsTo(t, "write")
	w.plugin.Reconfigure(hall.Table("write = false"), hall.Table("write = true"))
	y.leadsTo(t, "migrate")
	y.migrates(t)
	y.leadsTo(t, "scan")
	w.plugin.Reconfigure("name = \"attic\"\nrequired = true\n", "name = \"attic\"\nrequired = true\nwrite = false\n")
	y.leadsTo(t, "leave")
	y.migrates(t)
	y.leadsTo(t, "leave")
	for _, group := range y.scans().Groups {
		if group.KEK != "" && group.Opens["opens"] != group.Objects {
			t.Errorf("not all opens: %+v", group)
		}
	}
	w.plugin.RemoveProvider("attic", "--abandon", "--without-scan")
	y.leadsTo(t, "")
	attic.Off()
	w.server.Stop()
	w.plugin.Stop()
	w.plugin.Start()
	w.server.Start()
	l.readAll(t, w.server)
	y.leadsTo(t, "")
}
