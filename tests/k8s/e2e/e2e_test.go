package e2e

import (
	"fmt"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
	"nodeseal.internal/tests/k8s/internal/provider"
)

func TestSecretsUnderKMSv2SurviveRestartRotationAndCrashes(t *testing.T) { survive(t, full, kmsV2) }

func TestSecretsUnderKMSv1SurviveRestartRotationAndCrashes(t *testing.T) { survive(t, full, kmsV1) }

// life is how much happens to a control plane.
type life struct {
	secrets, crashes int
	pace             time.Duration // between two writes of one writer
}

// full is all of it. Unpaced, the later steps would have ten times the Secrets to read.
var full = life{secrets: 1000, crashes: 5, pace: 20 * time.Millisecond}

// survive leads one control plane through everything that happens to it in its life, each step on what the last left.
func survive(t *testing.T, much life, a api, roots ...*provider.Root) {
	w := begin(t, a, roots...)
	l := newLedger()
	type step struct {
		name string
		run  func(*testing.T, *world, *ledger)
	}
	steps := []step{
		{"Secrets are stored sealed", much.storedSealed},
		{"all are read back after a restart of plugin and API server", restarted},
		{"a rotation under traffic reaches writes without a restart", much.rotated},
		{"a crash of the plugin loses nothing that was acknowledged", much.crashed},
	}
	steps = append(steps, step{"a scan of etcd counts and opens what is there, and finds what was put past kube-apiserver", scanned})
	if len(roots) > 0 {
		steps = append(steps, step{"another node reads everything with the providers alone", elsewhere})
	}
	for _, step := range steps {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, w, l) }) {
			return // What follows would only repeat it.
		}
	}
}

func (much life) storedSealed(t *testing.T, w *world, l *ledger) {
	l.writeMany(t, w.server, "first", much.secrets)
	stored, err := w.sealedUnder(t, w.plugin.Active())
	if err != nil {
		t.Error(err)
	}
	if stored != much.secrets {
		t.Errorf("etcd holds %d Secrets, want %d", stored, much.secrets)
	}
	noPlaintext(t, w, l)
}

// noPlaintext looks for the canary in all files of etcd, after it has found there what was put on purpose.
func noPlaintext(t *testing.T, w *world, l *ledger) {
	t.Helper()
	control := "control-of-" + l.canary[len("canary-"):]
	w.etcd.Put("/control", control)
	if len(w.etcd.FilesWith(control)) == 0 {
		t.Fatal("the search does not even find what was written in clear")
	}
	if files := w.etcd.FilesWith(l.canary); len(files) > 0 {
		t.Errorf("plaintext of Secrets is in %v", files)
	}
}

func restarted(t *testing.T, w *world, l *ledger) {
	w.server.Stop()
	w.plugin.Stop()
	begin := time.Now()
	w.plugin.Start()
	t.Logf("the plugin was ready after %v", time.Since(begin))
	w.server.Start()
	t.Logf("kube-apiserver was ready after %v", w.server.Started)
	l.readAll(t, w.server)
}

func (much life) rotated(t *testing.T, w *world, l *ledger) {
	f := l.start(w.server, "rotation", much.pace)
	defer f.halt()
	f.flows(t)
	old := w.plugin.Active()
	begin := time.Now()
	w.rotate(t)
	active := w.plugin.Active()
	if active.ID == old.ID {
		t.Errorf("the active key is %s as before", old.ID)
	}

	// kube-apiserver believes a good answer of the plugin for 20 s; a readiness probe after that makes it ask again.
	probes := 0
	err := process.Until(25*time.Second, 250*time.Millisecond, func() error {
		if err := w.server.Ready(); err != nil {
			return err
		}
		name := fmt.Sprintf("probe-%d", probes)
		probes++
		if err := l.write(w.server, name); err != nil {
			return err
		}
		return w.api.sealed(w.payload(t, name), active)
	})
	if err != nil {
		t.Errorf("new writes are not under the new key: %v", err)
	}
	t.Logf("the new key reached writes after %v", time.Since(begin))
	f.flows(t)
	if err := f.end(); err != nil {
		t.Errorf("%d calls failed, the first: %v", f.failed.Load(), err)
	}
	t.Logf("meanwhile %d Secrets were read and %d written", f.reads.Load(), f.writes.Load())
	l.readAll(t, w.server)
	migrated(t, w, l, old, active)
}

// migrated reads and replaces every Secret, after which none may be under the old key.
func migrated(t *testing.T, w *world, l *ledger, old, active product.Key) {
	t.Helper()
	if _, err := w.sealedUnder(t, active); err == nil {
		t.Error("every Secret is under the new key before any was migrated, so this shows nothing")
	}
	if w.api.sealed(w.payload(t, "first-0"), old) != nil {
		t.Error("a Secret that was not touched is not under the old key any more")
	}
	names := l.names()
	begin := time.Now()
	each(t, "migrating", names, func(name string) error {
		secret, err := w.server.Get(name)
		if err != nil {
			return err
		}
		if !w.api.rewrites {
			secret.Metadata.Annotations = map[string]string{"migrated-to": active.ID}
		}
		return w.server.Replace(secret)
	})
	t.Logf("%d Secrets migrated in %v", len(names), time.Since(begin))
	stored, err := w.sealedUnder(t, active)
	if err != nil {
		t.Errorf("after the migration: %v", err)
	}
	if stored != len(names) {
		t.Errorf("etcd holds %d Secrets, %d were acknowledged", stored, len(names))
	}
	l.readAll(t, w.server)
}

func (much life) crashed(t *testing.T, w *world, l *ledger) {
	before := len(l.names())
	f := l.start(w.server, "crash", much.pace)
	defer f.halt()
	for n := range much.crashes {
		f.flows(t)
		// A key that is a moment old is the one that a crash could lose.
		w.renew(t)
		begin := time.Now()
		pid := w.plugin.Kill()
		revived := w.plugin.Revived(pid)
		// Recovered is when a Secret can be written again. With v2 it always could: the seed lives in kube-apiserver.
		attempt := 0
		err := process.Until(60*time.Second, 50*time.Millisecond, func() error {
			attempt++
			return l.write(w.server, fmt.Sprintf("after-%d-%d", n, attempt))
		})
		if err != nil {
			t.Fatalf("no Secret can be written after crash %d: %v", n+1, err)
		}
		t.Logf("crash %d: nodeseald was back after %v, a Secret was written after %v", n+1, revived, time.Since(begin))
	}
	wrong := f.end()
	if w.api.rewrites && wrong != nil {
		t.Errorf("with v2 a crash must not be noticed, but %d calls failed, the first: %v", f.failed.Load(), wrong)
	}
	t.Logf("through %d crashes %d Secrets were written, %d calls failed", much.crashes, len(l.names())-before, f.failed.Load())
	if wrong != nil {
		t.Logf("the first: %v", wrong)
	}
	if err := process.Until(60*time.Second, 250*time.Millisecond, w.server.Ready); err != nil {
		t.Fatalf("kube-apiserver is not ready after the crashes: %v", err)
	}
	// In two ways: with what this API server still knows, and by one that must ask the plugin for every key.
	l.readAll(t, w.server)
	w.server.Stop()
	w.server.Start()
	l.readAll(t, w.server)
	noPlaintext(t, w, l)
}

// elsewhere lets a node that has nothing but the providers take over from the first one.
func elsewhere(t *testing.T, w *world, l *ledger) {
	keyID := w.plugin.Status().KeyID
	w.server.Stop()
	w.plugin.Stop()
	plugin := product.StartWith(t, provider.Node("fastest", w.roots...))
	for _, root := range w.roots {
		if now := plugin.Status().KeyID; root.Rotates() && now != keyID {
			t.Errorf("key_id is %s, and was %s on the first node", now, keyID)
		}
	}
	server := cluster.StartAPIServer(t, w.etcd, plugin.EncryptionConfiguration(w.api.arguments...), w.api.flags...)
	t.Logf("kube-apiserver of another node was ready after %v", server.Started)
	l.readAll(t, server)
	l.writeMany(t, server, "elsewhere", 10)
	l.readAll(t, server)
}
