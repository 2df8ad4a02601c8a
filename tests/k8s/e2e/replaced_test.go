package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
)

// Nodeseal takes the place of another plugin behind one socket. kube-apiserver runs on, with the configuration that it has.
func TestAnotherPluginUnderKMSv2IsReplaced(t *testing.T) { replace(t, kmsV2, "v2") }

func TestAnotherPluginUnderKMSv1IsReplaced(t *testing.T) { replace(t, kmsV1, "v1") }

// other is the plugin that was there before.
type other struct {
	t       *testing.T
	dir     string
	process *process.Process
}

func (o *other) socket() string { return filepath.Join(o.dir, "other.sock") }

func (o *other) start() {
	o.t.Helper()
	os.Remove(o.socket())
	cmd := exec.Command(filepath.Join(o.dir, "plugin"), o.socket(), filepath.Join(o.dir, "key"))
	o.process = process.Start(o.t, o.dir, "other", cmd)
	err := process.Until(10*time.Second, 10*time.Millisecond, func() error {
		_, err := os.Stat(o.socket())
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

func replace(t *testing.T, a api, version string) {
	t.Parallel()
	o := &other{t: t, dir: process.Dir(t)}
	build := exec.Command("go", "build", "-mod=readonly", "-o", filepath.Join(o.dir, "plugin"), "../cmd/plugin")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o.start()
	// What kube-apiserver is told to connect to.
	endpoint := filepath.Join(o.dir, "kms.sock")
	listens := func(socket string) {
		t.Helper()
		if err := os.Symlink(socket, endpoint+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(endpoint+".new", endpoint); err != nil {
			t.Fatal(err)
		}
	}
	listens(o.socket())
	encryption := fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - kms:
          apiVersion: %s
          name: theirs
          endpoint: unix://%s
          timeout: 3s
      - identity: {}
`, version, endpoint)
	w := &world{api: a, etcd: cluster.StartEtcd(t)}
	w.server = cluster.StartAPIServer(t, w.etcd, []byte(encryption), a.flags...)
	w.server.CreateNamespace()
	l := newLedger()
	l.writeMany(t, w.server, "theirs", 40)

	// It is handed what Nodeseal has not made, and wraps nothing.
	const opens = "opens_foreign = true"
	table := fmt.Sprintf("[[provider]]\nname = \"old\"\nkind = \"kms-plugin\"\nwrite = false\n%s\nsocket = %q\nkey = \"theirs\"\n", opens, o.socket())
	w.plugin = product.StartWith(t, product.Setup{Fragment: table})
	way := newWay(t, w, []byte(encryption), "--from-plugin", "unix://"+o.socket())
	way.leadsTo(t, "take-place")
	f := l.start(w.server, "meanwhile", 50*time.Millisecond)
	defer f.halt()
	f.flows(t)
	listens(w.plugin.Socket)
	// Its connections end, and kube-apiserver makes new ones.
	o.process.Stop()
	o.start()
	err := process.Until(time.Minute, 250*time.Millisecond, func() error {
		name := fmt.Sprintf("ours-%d", len(l.names()))
		if err := l.write(w.server, name); err != nil {
			return err
		}
		return a.sealed(w.payload(t, name), w.plugin.Active())
	})
	if err != nil {
		t.Fatalf("kube-apiserver does not turn to Nodeseal: %v", err)
	}
	f.flows(t)
	wrong := f.end()
	t.Logf("meanwhile %d Secrets were read and %d written; %d calls failed", f.reads.Load(), f.writes.Load(), f.failed.Load())
	if a.rewrites && wrong != nil {
		t.Errorf("with v2 it must not be noticed, but %d calls failed, the first: %v", f.failed.Load(), wrong)
	}
	restarted := func() {
		t.Helper()
		w.server.Stop()
		w.server.Start()
		l.readAll(t, w.server)
	}
	restarted()

	way.leadsTo(t, "migrate")
	configuration := filepath.Join(o.dir, "encryption.yaml")
	if err := os.WriteFile(configuration, []byte(encryption), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := func() (objects, opening int) {
		t.Helper()
		scan, code := w.plugin.Scan("--endpoints", w.etcd.URL, "--open", "all", "--encryption-config", configuration)
		for _, group := range scan.Groups {
			if group.Provider == "theirs" && group.KEK == "" {
				objects += group.Objects
				opening += group.Opens["opens"]
			}
		}
		found := 0
		for _, finding := range scan.Findings {
			if finding.ID == "other-plugin" {
				found += finding.Objects
			}
		}
		if found != objects || objects > 0 && code != 1 {
			t.Errorf("%d objects are not Nodeseal's; exit code %d and findings %+v", objects, code, scan.Findings)
		}
		return objects, opening
	}
	if objects, opening := foreign(); objects < 40 || objects != opening {
		t.Errorf("of %d objects that Nodeseal has not made %d open", objects, opening)
	}
	if err := w.plugin.TryReconfigure(opens, "opens_foreign = false"); err == nil {
		t.Error("a reload took the only plugin away that opens some of what is stored")
	}
	w.plugin.Reconfigure(opens, opens) // until when it waits for another file
	l.readAll(t, w.server)

	each(t, "migrating", l.names(), func(name string) error {
		secret, err := w.server.Get(name)
		if err != nil {
			return err
		}
		if !a.rewrites {
			secret.Metadata.Annotations = map[string]string{"migrated": "once"}
		}
		return w.server.Replace(secret)
	})
	if objects, _ := foreign(); objects != 0 {
		t.Errorf("after the migration %d objects are not Nodeseal's", objects)
	}
	if _, err := w.sealedUnder(t, w.plugin.Active()); err != nil {
		t.Error(err)
	}
	// For eight minutes no scan proves anything.
	way.leadsTo(t, "scan")
	w.plugin.Reconfigure(opens, "opens_foreign = false", "--abandon", "--without-scan")
	w.plugin.RemoveProvider("old", "--abandon", "--without-scan")
	way.leadsTo(t, "")
	o.process.Stop()
	restarted()
	w.plugin.Stop()
	w.plugin.Start()
	restarted()
	noPlaintext(t, w, l)
}
