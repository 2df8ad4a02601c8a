package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
)

// TestTriageNamesWhatNothingOpensAndItsCallDeletesThatAlone spoils two Secrets in etcd, asks kube-apiserver for what it cannot read, and
// makes the calls that triage prints, with the rights that it names and no others.
func TestTriageNamesWhatNothingOpensAndItsCallDeletesThatAlone(t *testing.T) {
	t.Parallel()
	a := kmsV2
	a.flags = append(slices.Clone(a.flags), "--feature-gates=AllowUnsafeMalformedObjectDeletion=true")
	w := begin(t, a)
	l := newLedger()
	l.writeMany(t, w.server, "sound", 20)
	stored := w.etcd.Get(cluster.Registry + "sound-0")
	changed := bytes.Clone(stored)
	changed[len(changed)-1] ^= 1
	spoiled := map[string]string{
		cluster.Registry + "changed": string(changed),
		cluster.Registry + "cut":     string(stored[:len(a.prefix)+12]),
	}
	for key, value := range spoiled {
		w.etcd.Put(key, value)
	}

	errorsFile := filepath.Join(process.Dir(t), "read-errors.json")
	err := process.Until(time.Minute, 250*time.Millisecond, func() error {
		code, answer := w.server.List("/api/v1/secrets")
		var status struct{ Reason string }
		if json.Unmarshal(answer, &status) != nil || status.Reason != "StorageReadError" {
			return fmt.Errorf("kube-apiserver answers %d: %.300s", code, answer)
		}
		t.Logf("kube-apiserver: %s", answer)
		return os.WriteFile(errorsFile, answer, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}

	triage := func(code int, arguments ...string) map[string]product.TriageObject {
		t.Helper()
		answer, got := w.plugin.Triage(append([]string{"--endpoints", w.etcd.URL}, arguments...)...)
		if got != code || !answer.Complete {
			t.Fatalf("exit code %d, want %d: %s", got, code, answer.Text)
		}
		if strings.Contains(answer.Text, l.canary) {
			t.Error("what triage prints has the content of a Secret")
		}
		objects := make(map[string]product.TriageObject)
		for _, object := range answer.Objects {
			objects[object.Key] = object
		}
		return objects
	}
	scan := filepath.Join(process.Dir(t), "scan.json")
	found, _ := w.plugin.Scan("--endpoints", w.etcd.URL, "--open", "all", "--names")
	line, _, _ := strings.Cut(found.Text, "\n")
	if err := os.WriteFile(scan, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	snapshot := filepath.Join(process.Dir(t), "snapshot.db")
	w.etcd.Snapshot(snapshot)
	for _, arguments := range [][]string{{}, {"--read-errors", errorsFile}, {"--scan", scan}} {
		objects := triage(1, arguments...)
		if len(objects) != len(spoiled) || objects[cluster.Registry+"changed"].Reason != "moved" || objects[cluster.Registry+"cut"].Reason != "damaged" {
			t.Fatalf("%v: %+v", arguments, objects)
		}
	}
	if saved, code := w.plugin.Triage("--snapshot", snapshot, "--scan", scan); code != 1 || len(saved.Objects) != len(spoiled) {
		t.Fatalf("of the snapshot: exit code %d: %s", code, saved.Text)
	}

	answer, _ := w.plugin.Triage("--endpoints", w.etcd.URL)
	if want := "--feature-gates=" + answer.Needs.FeatureGate + "=true"; !slices.Contains(a.flags, want) {
		t.Errorf("the gate is %s, and kube-apiserver runs with %v", answer.Needs.FeatureGate, a.flags)
	}
	rights := func(name string, verbs []string) {
		w.server.Apply(fmt.Appendf(nil, "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: %s}\nrules:\n- {apiGroups: [''], resources: [%s], verbs: [%s]}\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: %s}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %s}\nsubjects:\n- {apiGroup: rbac.authorization.k8s.io, kind: User, name: %s}\n",
			name, strings.Join(answer.Needs.Resources, ", "), strings.Join(verbs, ", "), name, name, cluster.Migrator))
	}
	rights("first", answer.Needs.Verbs[:1])
	for _, object := range answer.Objects {
		uri := strings.TrimSuffix(strings.TrimPrefix(object.Delete, "kubectl delete --raw '"), "'")
		if uri == object.Delete {
			t.Fatalf("the call is %q", object.Delete)
		}
		if code, said := w.server.DeleteAsMigrator(t, uri); code != http.StatusForbidden || !strings.Contains(said, answer.Needs.Verbs[1]) {
			t.Errorf("without the second right: %d %s", code, said)
		}
	}
	rights("second", answer.Needs.Verbs[1:])
	for _, object := range answer.Objects {
		uri := strings.TrimSuffix(strings.TrimPrefix(object.Delete, "kubectl delete --raw '"), "'")
		err := process.Until(20*time.Second, 100*time.Millisecond, func() error {
			if code, said := w.server.DeleteAsMigrator(t, uri); code != http.StatusOK {
				return fmt.Errorf("%s: %d %s", uri, code, said)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if w.etcd.Get(object.Key) != nil {
			t.Errorf("%s is still there", object.Key)
		}
		// What can be read is refused.
		sound := strings.Replace(uri, filepath.Base(object.Key), "sound-1", 1)
		if code, said := w.server.DeleteAsMigrator(t, sound); code != http.StatusUnprocessableEntity {
			t.Errorf("a Secret that opens: %d %s", code, said)
		}
	}
	l.readAll(t, w.server)
	if left := triage(0); len(left) != 0 {
		t.Errorf("after the calls: %+v", left)
	}
	// The files are of before.
	for _, object := range triage(0, "--read-errors", errorsFile) {
		if object.Reason != "gone" {
			t.Errorf("%+v", object)
		}
	}
}
