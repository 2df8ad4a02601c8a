package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/cluster"
	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
)

// migration is a control plane for a migration by a user with the rights of the pages.
type migration struct {
	*world
	l          *ledger
	kubeconfig string
	encryption string // file
}

// migrating starts one with that many Secrets. The user has the whole of the file of rights, or without rewrites its first part.
func migrating(t *testing.T, a api, secrets int, rewrites bool, flags ...string) *migration {
	t.Helper()
	m := &migration{world: &world{api: a, etcd: cluster.StartEtcd(t), plugin: product.Start(t)}, l: newLedger()}
	encryption := m.plugin.EncryptionConfiguration(a.arguments...)
	m.encryption = filepath.Join(process.Dir(t), "encryption.yaml")
	if err := os.WriteFile(m.encryption, encryption, 0o600); err != nil {
		t.Fatal(err)
	}
	m.server = cluster.StartAPIServer(t, m.etcd, encryption, append(a.flags, flags...)...)
	m.server.CreateNamespace()
	rights, err := os.ReadFile(filepath.Join(os.Getenv("NODESEAL_TESTS"), "../docs/operations/migrate-rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, found := bytes.Cut(rights, []byte("\n---\n# From here on"))
	if !found {
		t.Fatal("the file of rights has no second part")
	}
	if rewrites {
		first = rights
	}
	m.server.Apply(first)
	m.kubeconfig = m.server.Kubeconfig(cluster.Migrator)
	m.l.writeMany(t, m.server, "old", secrets)
	return m
}

// hashOf is a key_id as kube-apiserver's metrics show it.
func hashOf(key product.Key) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(key.KeyID)))
}

func (m *migration) arguments(verb string, more ...string) []string {
	arguments := []string{verb, "--kubeconfig", m.kubeconfig}
	if verb == "plan" || verb == "run" {
		arguments = append(arguments, "--encryption-config", m.encryption)
	}
	return append(arguments, more...)
}

// allUnder fails unless every Secret that was acknowledged is stored under the active key and can be read.
func (m *migration) allUnder(t *testing.T) {
	t.Helper()
	count, err := m.sealedUnder(t, m.plugin.Active())
	if err != nil || count != len(m.l.names()) {
		t.Errorf("%d of %d Secrets are stored; %v", count, len(m.l.names()), err)
	}
	m.l.readAll(t, m.server)
}

// retired lets a run wait until its scan is a proof, which takes eight minutes, and destroys the KEKs that it names.
func (m *migration) retired(t *testing.T, servers string) {
	t.Helper()
	if os.Getenv("NODESEAL_E2E") != "full" {
		return
	}
	run, code := m.plugin.Migrate(m.arguments("run", "--api-servers", servers, "--endpoints", m.etcd.URL, "--undivided")...)
	// The first one and two that followed; the last one is active.
	if code != 0 || len(run.Retire) != 3 || len(run.Next) != 3 {
		t.Fatalf("run: exit code %d, %s", code, run.Text)
	}
	// Nobody can make a backup of etcd from before a second that has not ended.
	time.Sleep(2 * time.Second)
	now := time.Now().UTC().Add(-time.Second).Format(time.RFC3339)
	for _, kek := range run.Retire {
		m.plugin.Retire(kek.ID, "--backups-before", now)
	}
	m.allUnder(t)
	m.silent(t, run)
}

// silent fails if what was printed has the content of a Secret.
func (m *migration) silent(t *testing.T, answers ...product.Migration) {
	t.Helper()
	for _, answer := range answers {
		if strings.Contains(answer.Text, m.l.canary) {
			t.Error("what is printed has the content of a Secret")
		}
	}
}

func TestMigrationFromOutsideContinuesWhereItWasKilledAndEndsUnderTheNewKey(t *testing.T) {
	t.Parallel()
	const secrets = 600 // three pages
	m := migrating(t, kmsV2, secrets, true)
	second := m.server.StartBeside(m.etcd, m.plugin.EncryptionConfiguration(m.api.arguments...))
	servers := m.server.URL() + "," + second.URL()
	before := m.plugin.Active()
	m.plugin.Rotate()

	// Nobody answers at the third one, so nothing is known of it, and a plan waits for nothing.
	plan, code := m.plugin.Migrate(m.arguments("plan", "--api-servers", servers+",https://127.0.0.1:1")...)
	if code != 0 || plan.WaitsFor == "" || len(plan.APIServers) != 3 || plan.APIServers[2].Agrees != nil {
		t.Errorf("plan: exit code %d, %s", code, plan.Text)
	}
	// A key that no server reports.
	other := "sha256:" + strings.Repeat("0", 64)
	plan, code = m.plugin.Migrate(m.arguments("plan", "--api-servers", servers, "--key-id-hash", other, "--wait", "0")...)
	if code != 1 || plan.Ready || *plan.APIServers[0].Agrees {
		t.Errorf("plan: exit code %d, %s", code, plan.Text)
	}
	run, code := m.plugin.Migrate(m.arguments("run", "--api-servers", servers, "--key-id-hash", other, "--wait", "0")...)
	if code != 2 || !strings.Contains(run.Error, "do not report one key_id") {
		t.Errorf("run: exit code %d, %s", code, run.Text)
	}

	plan, code = m.plugin.Migrate(m.arguments("plan", "--api-servers", servers)...)
	if code != 0 || !plan.Ready || plan.WaitsFor != "" || plan.KeyIDHash != hashOf(m.plugin.Active()) {
		t.Errorf("plan: exit code %d, %s", code, plan.Text)
	}
	if len(plan.Resources) != 1 || plan.Resources[0].Resource != "secrets" || plan.Resources[0].By != "rewrite" {
		t.Errorf("plan: %+v", plan.Resources)
	}
	if count, err := m.sealedUnder(t, before); count != secrets || err != nil {
		t.Errorf("a plan has written something: %v", err)
	}

	// A page of 250 takes more than two seconds.
	running := m.plugin.BeginMigrate(m.arguments("run", "--api-servers", servers, "--rate", "100")...)
	err := process.Until(time.Minute, 50*time.Millisecond, func() error {
		if m.etcd.Get("/registry/configmaps/kube-system/nodeseal-migration") == nil {
			return errors.New("no page is done")
		}
		return nil
	})
	running.Kill()
	if err != nil {
		t.Fatal(err)
	}
	status, code := m.plugin.Migrate(m.arguments("status")...)
	if code != 1 || status.Complete || len(status.Resources) != 1 || status.Resources[0].State != "running" || status.Resources[0].Objects != 250 {
		t.Errorf("status: exit code %d, %s", code, status.Text)
	}
	if _, err := m.sealedUnder(t, m.plugin.Active()); err == nil {
		t.Error("it had written everything before it was killed")
	}

	// Others write all the while, what is there already and what is new.
	done, wrote := make(chan struct{}), make(chan error)
	go func() { wrote <- writing(m, done) }()
	run, code = m.plugin.Migrate(m.arguments("run", "--api-servers", servers, "--rate", "10000", "--endpoints", m.etcd.URL, "--undivided", "--scan-now")...)
	close(done)
	if err := <-wrote; err != nil {
		t.Errorf("a write beside the migration failed: %v", err)
	}
	if code != 0 || !run.Complete || !run.Agreed || run.Resources[0].Objects < secrets || run.Resources[0].Failed != 0 {
		t.Fatalf("run: exit code %d, %s", code, run.Text)
	}
	if run.Scan == nil || len(run.Scan.Findings) != 0 || !run.Scan.Complete {
		t.Errorf("its scan: %+v", run.Scan)
	}
	// Too soon after the key_id has moved for a proof.
	if len(run.Retire) != 0 || len(run.Next) == 0 {
		t.Errorf("it would have a KEK destroyed: %s", run.Text)
	}
	m.allUnder(t)
	status, code = m.plugin.Migrate(m.arguments("status")...)
	if code != 0 || !status.Complete || status.Resources[0].State != "done" {
		t.Errorf("status: exit code %d, %s", code, status.Text)
	}
	m.silent(t, plan, status, run)
}

// writing makes and changes Secrets until it is told to end. A change that is based on an older one is refused by kube-apiserver, and made
// again as every client does it.
func writing(m *migration, done <-chan struct{}) error {
	for n := 0; ; n++ {
		select {
		case <-done:
			return nil
		default:
		}
		if err := m.l.write(m.server, fmt.Sprintf("during-%d", n)); err != nil {
			return err
		}
		secret, err := m.server.Get(fmt.Sprintf("old-%d", n%600))
		if err != nil {
			return err
		}
		secret.Metadata.Annotations = map[string]string{"written": fmt.Sprint(n)}
		if err := m.server.Replace(secret); err != nil && !strings.Contains(err.Error(), ": 409: ") {
			return err
		}
	}
}

func TestMigrationUnderKMSv1WritesEachObjectByAnAnnotation(t *testing.T) {
	t.Parallel()
	const secrets = 40
	m := migrating(t, kmsV1, secrets, true)
	m.plugin.Rotate()
	// Nobody but nodeseald knows a key_id under KMS v1, and so time alone would tell.
	plan, code := m.plugin.Migrate(m.arguments("plan", "--api-servers", m.server.URL())...)
	if code != 0 || !strings.Contains(plan.WaitsFor, "KMS v1") || plan.Resources[0].By != "rewrite-with-annotation" {
		t.Errorf("plan: exit code %d, %s", code, plan.Text)
	}
	run, code := m.plugin.Migrate(m.arguments("run", "--api-servers", m.server.URL(), "--wait", "0", "--rate", "10000")...)
	if code != 0 || !run.Complete || run.Agreed || run.Resources[0].Objects != secrets {
		t.Fatalf("run: exit code %d, %s", code, run.Text)
	}
	m.allUnder(t)
	// Nothing is left to continue, so one that is run once more begins again.
	values := m.etcd.Values(cluster.Registry)
	if run, code = m.plugin.Migrate(m.arguments("run", "--api-servers", m.server.URL(), "--wait", "0")...); code != 0 || !run.Complete {
		t.Errorf("run: exit code %d, %s", code, run.Text)
	}
	for name, value := range m.etcd.Values(cluster.Registry) {
		if bytes.Equal(value, values[name]) {
			t.Errorf("%s was not written again", name)
		}
	}
	m.silent(t, plan, run)
}

func TestMigrationByTheClusterNeedsNoRightToReadSecrets(t *testing.T) {
	t.Parallel()
	const secrets = 100
	m := migrating(t, kmsV2, secrets, false, "--feature-gates=StorageVersionMigrator=true", "--runtime-config=storagemigration.k8s.io/v1beta1=true")
	servers := m.server.URL()
	m.plugin.Rotate()
	plan, code := m.plugin.Migrate(m.arguments("plan", "--api-servers", servers)...)
	if code != 0 || !plan.Ready || plan.Resources[0].By != "storage-version-migration" {
		t.Fatalf("plan: exit code %d, %s", code, plan.Text)
	}

	// Nobody carries it out yet.
	running := m.plugin.BeginMigrate(m.arguments("run", "--api-servers", servers)...)
	waiting := func() error {
		status, code := m.plugin.Migrate(m.arguments("status")...)
		if code != 1 || len(status.Resources) != 1 || status.Resources[0].State != "waiting" {
			return errors.New(status.Text)
		}
		return nil
	}
	err := process.Until(time.Minute, 100*time.Millisecond, waiting)
	running.Kill()
	if err != nil {
		t.Fatal(err)
	}
	stop, code := m.plugin.Migrate(m.arguments("stop")...)
	if code != 0 || len(stop.Removed) != 1 {
		t.Errorf("stop: exit code %d, %s", code, stop.Text)
	}
	status, code := m.plugin.Migrate(m.arguments("status")...)
	if code != 0 || len(status.Resources) != 0 {
		t.Errorf("status after stop: exit code %d, %s", code, status.Text)
	}

	cluster.StartControllerManager(t, m.server)
	for range 2 {
		run, code := m.plugin.Migrate(m.arguments("run", "--api-servers", servers, "--endpoints", m.etcd.URL, "--undivided", "--scan-now")...)
		if code != 0 || !run.Complete || !run.Agreed || run.Resources[0].State != "done" || len(run.Scan.Findings) != 0 {
			t.Fatalf("run: exit code %d, %s", code, run.Text)
		}
		m.allUnder(t)
		m.silent(t, run)
		// The next key is another migration, and what is left of this one goes.
		m.plugin.Rotate()
	}
	m.retired(t, servers)
	if stop, _ = m.plugin.Migrate(m.arguments("stop")...); len(stop.Removed) != 0 {
		t.Errorf("stop has removed what is done: %v", stop.Removed)
	}
	// And it could not have been done from outside.
	run, code := m.plugin.Migrate(m.arguments("run", "--api-servers", servers, "--rewrite")...)
	if code != 2 || !strings.Contains(run.Error, "403") {
		t.Errorf("run --rewrite without rights: exit code %d, %s", code, run.Text)
	}
}
