package e2e

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
)

// scanned compares what `nodeseal etcd scan` says with an independent count of what etcd holds, and then with objects that somebody
// has put there past kube-apiserver, which cannot read those.
func scanned(t *testing.T, w *world, l *ledger) {
	configuration := filepath.Join(process.Dir(t), "encryption.yaml")
	if err := os.WriteFile(configuration, w.plugin.EncryptionConfiguration(w.api.arguments...), 0o600); err != nil {
		t.Fatal(err)
	}
	live := []string{"--endpoints", w.etcd.URL, "--encryption-config", configuration}

	scan, code := w.plugin.Scan(append(live, "--open", "all")...)
	counted(t, w, scan)
	older := 0
	// With providers the key_id names their keys, and a KEK before the last one is as current as the last.
	if len(w.roots) == 0 {
		older = w.older(t)
	}
	if findings := scan.Findings; older == 0 && (code != 0 || len(findings) != 0) ||
		older > 0 && (code != 1 || len(findings) != 1 || findings[0].ID != "older-key" || findings[0].Objects != older) {
		t.Errorf("%d Secrets are under an older key; exit code %d and findings %+v", older, code, findings)
	}
	for _, group := range scan.Groups {
		if group.KEK != "" && group.Opens["opens"] != group.Objects {
			t.Errorf("of a healthy cluster not all opens: %+v", group)
		}
	}

	file := filepath.Join(process.Dir(t), "snapshot.db")
	w.etcd.Snapshot(file)
	saved, _ := w.plugin.Scan("--snapshot", file, "--encryption-config", configuration, "--open", "all")
	counted(t, w, saved)
	if !reflect.DeepEqual(secretsOf(saved), secretsOf(scan)) {
		t.Errorf("of the snapshot:\n%+v\nof etcd:\n%+v", secretsOf(saved), secretsOf(scan))
	}

	stored := w.movable(t)
	past := map[string]string{
		"moved":               stored,
		"damaged":             stored[:len(w.api.prefix)+12],
		"not-encrypted":       "k8s\x00\n\x0c\n\x02v1\x12\x06Secret",
		"unreadable":          "k8s:enc:aescbc:v1:gone:0123456789abcdef0123456789abcdef",
		"unknown-transformer": "k8s:enc:next:v1:name:0123456789abcdef",
	}
	for name, value := range past {
		w.etcd.Put("/registry/secrets/past/"+name, value)
	}
	// No kube-apiserver that starts later could list Secrets beside them.
	defer func() {
		for name := range past {
			w.etcd.Delete("/registry/secrets/past/" + name)
		}
	}()
	scan, code = w.plugin.Scan(append(live, "--open", "all", "--names")...)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	found := make(map[string][]string)
	for _, finding := range scan.Findings {
		if finding.ID != "older-key" {
			found[finding.ID] = append(found[finding.ID], finding.Names...)
		}
	}
	for name := range past {
		if want := []string{"/registry/secrets/past/" + name}; !slices.Equal(found[name], want) {
			t.Errorf("%s: %v, want %v", name, found[name], want)
		}
	}
	if len(found) != len(past) {
		t.Errorf("findings %v, want %v", slices.Collect(maps.Keys(found)), slices.Collect(maps.Keys(past)))
	}
	// Whether an object lies where it was written is seen by its own bytes alone.
	if seeds, _ := w.plugin.Scan(append(live, "--open", "seeds")...); slices.ContainsFunc(seeds.Findings, func(f product.ScanFinding) bool { return f.ID == "moved" }) {
		t.Errorf("seeds alone have shown a move: %+v", seeds.Findings)
	}
	for _, text := range []string{scan.Text, saved.Text} {
		if strings.Contains(text, l.canary) {
			t.Error("what the scan prints has the content of a Secret")
		}
	}
}

// movable is a stored Secret of which a move is found: under KMS v1 none that could be in CBC by its length, of which nothing is said.
func (w *world) movable(t *testing.T) string {
	t.Helper()
	for name, value := range w.etcd.Values("/registry/secrets/sealed/") {
		payload := w.unwrap(t, name, value)
		if w.api.prefix == kmsV1.prefix && len(payload) >= 2 && (len(payload)-2-int(binary.BigEndian.Uint16(payload)))%16 == 0 {
			continue
		}
		return string(value)
	}
	t.Fatal("each Secret has the length of whole blocks")
	return ""
}

// older is how many Secrets are not under the key that is active, by means of the tests.
func (w *world) older(t *testing.T) (count int) {
	t.Helper()
	active := w.plugin.Active()
	for name, value := range w.etcd.Values("/registry/secrets/") {
		if w.api.sealed(w.unwrap(t, name, value), active) != nil {
			count++
		}
	}
	return count
}

// counted compares with a count by other means: by KEK, and all objects.
func counted(t *testing.T, w *world, scan product.Scan) {
	t.Helper()
	objects, byKEK := 0, make(map[string]int)
	keys := w.plugin.Keys()
	for _, value := range w.etcd.Values("/registry/") {
		objects++
		for _, key := range keys {
			if strings.HasPrefix(string(value), w.api.prefix) && names(value, key) == nil {
				byKEK[key.ID]++
			}
		}
	}
	found, all := make(map[string]int), 0
	for _, group := range scan.Groups {
		all += group.Objects
		if group.KEK != "" {
			found[group.KEK] += group.Objects
		}
	}
	// Leases and events come and go.
	if !scan.Complete || all != scan.Objects || scan.Objects < objects-20 || scan.Objects > objects+20 {
		t.Errorf("the scan counted %d objects (%d in groups), etcd holds %d", scan.Objects, all, objects)
	}
	if len(byKEK) == 0 || !maps.Equal(found, byKEK) {
		t.Errorf("the scan counted by KEK %v, etcd holds %v", found, byKEK)
	}
}

// secretsOf are the groups of Secrets, which nobody writes meanwhile.
func secretsOf(scan product.Scan) []product.ScanGroup {
	return slices.DeleteFunc(slices.Clone(scan.Groups), func(group product.ScanGroup) bool { return group.Resource != "secrets" })
}

// TestScanOfAWildcardHasNoFindings looks at what kube-apiserver keeps for itself: counted like everything, and wanted by no configuration.
func TestScanOfAWildcardHasNoFindings(t *testing.T) {
	w := &world{api: kmsV2, etcd: cluster.StartEtcd(t), plugin: product.Start(t)}
	encryption := w.plugin.EncryptionConfiguration("--resources", "*.*")
	w.server = cluster.StartAPIServer(t, w.etcd, encryption)
	w.server.CreateNamespace()
	err := process.Until(time.Minute, 100*time.Millisecond, func() error {
		if w.etcd.Get("/registry/ranges/servicenodeports") == nil {
			return errors.New("the range of node ports is not written yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.server.Stop() // It writes more for some seconds.
	configuration := filepath.Join(process.Dir(t), "encryption.yaml")
	if err := os.WriteFile(configuration, encryption, 0o600); err != nil {
		t.Fatal(err)
	}
	scan, code := w.plugin.Scan("--endpoints", w.etcd.URL, "--open", "all", "--encryption-config", configuration)
	counted(t, w, scan)
	if code != 0 || len(scan.Findings) != 0 {
		t.Errorf("exit code %d, findings %+v", code, scan.Findings)
	}
	if !slices.ContainsFunc(scan.Groups, func(group product.ScanGroup) bool { return group.Resource == "ranges" }) {
		t.Errorf("the range of node ports is not counted: %+v", scan.Groups)
	}
}
